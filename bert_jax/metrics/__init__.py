"""Scores predictions, a file for each family of metrics."""
