"""Configurations for the command line, short scripts, and benchmarks."""
