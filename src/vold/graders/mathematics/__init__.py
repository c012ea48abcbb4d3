"""How the `math` grader compares: tokens, trees, values, what counts as equal, and the worker processes.

No grader is in here: graders are the modules one folder up.
"""
