"""Benchmarks: `python -m examples.benchmarks.<name>` from the repository root."""
