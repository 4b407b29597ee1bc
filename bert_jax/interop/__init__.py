"""Reads and writes the weights of Hugging Face and of Google's TensorFlow checkpoints."""
