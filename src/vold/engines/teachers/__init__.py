"""Teachers: who is asked about a task (`teachers`), where a teacher runs (`backend`), and what scores a rollout
(`inprocess`, `server`, with `cached`, `aligned` and `routed` around them); `ask` decides which rollouts are scored.
"""
