"""Holds the suites of the benchmark, a file each."""
