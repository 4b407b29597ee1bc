"""Runs many trainings as one, and compares the numbers with PyTorch's."""
