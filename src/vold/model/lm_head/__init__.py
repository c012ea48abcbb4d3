"""Lm head."""
