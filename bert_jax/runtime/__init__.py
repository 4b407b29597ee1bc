"""Knows the machine that a run computes on: devices, memory, files, signals and the command line."""
