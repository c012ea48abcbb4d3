"""How the `math` grader compares: notation that is folded, equality by Math-Verify, the worker process and its client.

No grader is in here: graders are the modules one folder up.
"""
