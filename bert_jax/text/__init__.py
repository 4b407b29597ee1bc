"""Turns raw text into a tokenizer and a corpus of token ids; knows nothing of JAX."""
