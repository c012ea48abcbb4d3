"""Two Triton kernels for `lm_head.logprobs` on GPUs: a chunk of logits is read once forward, once backward, in place.

Importing this module needs Triton, which comes with PyTorch's builds for GPUs; `lm_head.logprobs` does without where it
is not there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096
"""Ids that a program reads at a time."""


def read(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a distribution is read for, in one pass over the logits (online softmax).

    Args:
        logits: [tokens, vocabulary] float32.
        targets: [tokens] int64.

    Returns:
        Log-prob of the target, entropy, most likely id (the lowest of equals) and log-normaliser, each [tokens]:
        float32 nats, but for the ids, which are int64.
    """
    values = logits.new_empty((3, len(logits)))
    argmax = torch.empty_like(targets)
    _forward[(len(logits),)](logits, targets, values, argmax, logits.shape[1], logits.stride(0), BLOCK=BLOCK)
    logp, entropy, normaliser = values
    return logp, entropy, argmax, normaliser


def turn_into_gradient(
    logits: torch.Tensor, targets: torch.Tensor, normaliser: torch.Tensor, upstream: torch.Tensor
) -> torch.Tensor:
    """Overwrite logits with g ([j = y] - p_j), the gradient of g log p_y.

    Args:
        logits: [tokens, vocabulary] float32; also what is returned.
        targets: [tokens] int64, y.
        normaliser: [tokens] float32, from `read`.
        upstream: [tokens] float32, g.
    """
    grid = (len(logits), triton.cdiv(logits.shape[1], BLOCK))
    _backward[grid](logits, targets, normaliser, upstream, logits.shape[1], logits.stride(0), BLOCK=BLOCK)
    return logits


@triton.jit
def _forward(logits, targets, values, argmax, size, stride, BLOCK: tl.constexpr):
    rows = tl.num_programs(0).to(tl.int64)
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    top = -float("inf")
    best = 0
    total = 0.0  # of exp(z - top)
    weighted = 0.0  # of z exp(z - top)
    for first in range(0, size, BLOCK):
        ids = first + tl.arange(0, BLOCK)
        there = ids < size
        z = tl.load(start + ids, mask=there, other=-float("inf"))
        here = tl.max(z, axis=0)
        best = tl.where(here > top, first + tl.argmax(z, axis=0), best)
        higher = tl.maximum(top, here)
        shrink = tl.exp(top - higher)
        e = tl.exp(z - higher)
        total = total * shrink + tl.sum(e, axis=0)
        weighted = weighted * shrink + tl.sum(tl.where(there, z, 0.0) * e, axis=0)
        top = higher
    norm = top + tl.log(total)
    tl.store(values + row, tl.load(start + tl.load(targets + row)) - norm)
    tl.store(values + rows + row, norm - weighted / total)
    tl.store(argmax + row, best)
    tl.store(values + 2 * rows + row, norm)


@triton.jit
def _backward(logits, targets, normaliser, upstream, size, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = logits + row * stride + ids
    z = tl.load(place, mask=ids < size, other=-float("inf"))
    p = tl.exp(z - tl.load(normaliser + row))
    hit = tl.where(ids == tl.load(targets + row), 1.0, 0.0)
    tl.store(place, tl.load(upstream + row) * (hit - p), mask=ids < size)
