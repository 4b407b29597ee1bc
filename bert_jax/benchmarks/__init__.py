"""Measures training, inference and data beside PyTorch: each side in its own process, in turns."""
