"""Worlds made by rules: problems with their texts, pictures and worked solutions."""
