"""Benchmarks of the literature: reading, asking, marking, comparing."""
