"""Tools that a rollout may call: a Python interpreter whose programs run in a jail."""
