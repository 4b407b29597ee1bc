"""Describes what can be fine-tuned: the table of tasks, the kinds of tasks and the readers of their data."""
