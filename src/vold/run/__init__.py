"""A run on disk and the recipe that describes it: sections and their validation, overrides, the directory of a stage,
whole-or-absent files, and the types of what is stored (metrics, results, summaries, answers).
Also what decides an order (seeds, epochs) and the console.
"""
