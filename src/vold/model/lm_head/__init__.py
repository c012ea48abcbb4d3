"""The LM head, chunk by chunk: log-probs, entropies, candidates and divergences without a [tokens, vocabulary]
tensor; `logprobs.read_head` is the entrance, `fused` the pass, `triton_kernels` its form on a GPU.
"""
