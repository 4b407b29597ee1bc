"""Starts a small model better than with random weights alone."""
