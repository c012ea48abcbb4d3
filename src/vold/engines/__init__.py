"""Where tokens and scores come from: samplers of the student, teachers, and the tools that rollouts may call.
In this process or on servers (`http`, `vllm`, `chat_api`); the stages see `Sampler` and `Teacher` of `vold.types`, and
never ask which. `grade` turns a completion into its grade, `mismatch` measures sampler against trainer.
"""
