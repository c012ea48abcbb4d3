"""The LM head, and the two kernels it is made of on a GPU, against dense PyTorch."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.clock import host_waits, seconds, seconds_and_peak
from vold.model.lm_head.fused import HeadOutput, Query
from vold.model.lm_head.logprobs import read_head

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given


def kernels(given: Given) -> dict[str, Any]:
    """Largest differences from dense float32, relative for the gradient, and GB/s of a pass over the logits."""
    if given.device != "cuda":
        return {"left out": "the kernels are Triton's and run on a GPU"}
    found = importlib.import_module("vold.model.lm_head.triton_kernels")
    tokens, size = given.per(16, 1500), given.per(512, 151936)
    logits = torch.randn(tokens, size, device=given.device) * 3
    logits[:, -3:] = -1e30
    targets = torch.randint(0, size - 3, (tokens,), device=given.device)
    logp, entropy, best, norm = found.read(logits, targets)
    full = logits.log_softmax(-1)
    upstream = torch.randn(tokens, device=given.device)
    wanted = full.exp().mul_(-upstream[:, None]).scatter_add_(-1, targets[:, None], upstream[:, None])
    got = found.turn_into_gradient(logits.clone(), targets, norm, upstream)
    plain = -(full.exp() * full.clamp(min=-1e29)).sum(-1)
    return {
        "tokens": tokens,
        "logp": float((logp - full.gather(-1, targets[:, None])[:, 0]).abs().max()),
        "entropy": float((entropy - plain).abs().max()),
        "gradient": float((got - wanted).norm() / wanted.norm()),
        "other_favourites": int((best != logits.argmax(-1)).sum()),
        "read_gb_s": logits.nbytes / seconds(given.device, lambda: found.read(logits, targets)) / 1e9,
    }


def head(given: Given) -> dict[str, Any]:
    """Log-prob, entropy and gradients of 151,936 ids in bfloat16: seconds and GiB, fused and dense, and how far apart
    the gradients are (relative)."""
    tokens, size = given.per(16, 8192 if given.shape.budget >= 16384 else 2048), given.per(512, 151936)
    width = given.per(32, 2048)
    hidden = torch.randn(tokens, width, device=given.device, dtype=torch.bfloat16, requires_grad=True)
    layer = torch.nn.Linear(width, size, bias=False, device=given.device, dtype=torch.bfloat16)
    torch.nn.init.normal_(layer.weight, std=0.02)
    targets = torch.randint(0, size - 3, (tokens,), device=given.device)
    banned, upstream = torch.arange(size - 3, size, device=given.device), torch.randn(tokens, device=given.device)

    def summed(part: slice, output: HeadOutput) -> torch.Tensor:
        return (output.logp * upstream[part]).sum()

    def gradients(log_probs: torch.Tensor) -> list[torch.Tensor]:
        hidden.grad = layer.weight.grad = None
        (log_probs * upstream).sum().backward()
        return [g for g in (hidden.grad, layer.weight.grad) if g is not None]

    def fused() -> list[torch.Tensor]:
        return gradients(read_head(hidden, layer, Query(targets, banned, loss_of=summed)).logp)

    def dense() -> list[torch.Tensor]:
        full = layer(hidden).float().index_fill(-1, banned, -1e30).log_softmax(-1)
        with torch.no_grad():
            -(full.exp() * full).sum(-1)
        return gradients(full.gather(-1, targets[:, None])[:, 0])

    ours, theirs = ([g.float() for g in way()] for way in (fused, dense))
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True)]
    del ours, theirs
    with host_waits(given.device) as waits:
        fused()
    found: dict[str, Any] = {"tokens": tokens, "states_apart": apart[0], "weights_apart": apart[1]}
    for name, way in (("fused", fused), ("dense", dense)):
        turns = sorted(map(partial(seconds_and_peak, given.device), [way] * 3))
        found |= {f"{name}_seconds": turns[1][0], f"{name}_gib": turns[1][1]}
    return {**found, "fused_over_dense": found["fused_seconds"] / found["dense_seconds"], "host_waits": len(waits)}
