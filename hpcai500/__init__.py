"""Benchmark HPC AI systems by Valid FLOPS."""

__version__ = "0.1.0"
