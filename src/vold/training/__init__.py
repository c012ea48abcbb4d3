"""The stages that make something: `traces`, `sft`, `distill` (the loop of the method) and `balance`.
A training stage is `stage.Training`; a step passes `problems`, `rollout`, `scoring`, `vold.objective` and `step`.
Around them: the optimizer, checkpoints, trackers and the log of rollouts.
"""
