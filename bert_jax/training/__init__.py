"""Trains any objective: the one loop, the optimizer, checkpoints and metrics; knows nothing of BERT."""
