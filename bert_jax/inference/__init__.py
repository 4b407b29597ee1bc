"""Answers with a finished model: in Python, from lines of JSON, and as an exported program."""
