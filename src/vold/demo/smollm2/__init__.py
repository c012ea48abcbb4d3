"""Smollm2."""
