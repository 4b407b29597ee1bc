"""Holds BERT's architecture as Flax modules: embeddings, encoder, heads and the kernels of attention."""
