"""Fine-tunes a model on a task."""
