"""What a student can act in during a rollout: tools, and the turns they take."""
