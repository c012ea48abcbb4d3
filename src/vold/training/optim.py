"""The update rule: AdamW, warm-up and decay, and a guard in front of the weights."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.adamw import adamw

from vold.errors import Diverged
from vold.model import moments
from vold.model.quantized import need_library
from vold.model.sharding import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.model.policy import Policy
    from vold.run.recipe import Optimizer

BETAS = (0.9, 0.98)
"""Decay rates of the moments. The paper does not give any."""


class MasterAdamW(torch.optim.AdamW):
    """AdamW for weights below float32: it updates a float32 copy of them and rounds that.

    An update is often smaller than the distance of two neighbouring bfloat16 numbers, and would be lost otherwise.
    Gradients are summed in float32 too. The copy is part of the state (`master`), beside the moments, which may be
    kept in 8 bits (`vold.model.moments`).
    """

    def __init__(
        self, groups: Any, *, lr: float, betas: tuple[float, float], fused: bool = True, eight_bit: bool = False
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=fused)
        self.eight_bit = eight_bit
        for p in (p for group in self.param_groups for p in group["params"]):
            p.grad_dtype = torch.float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state |= self._begun(p)
                master = state.get("master", p)
                (moments.adamw if moments.SCALES[0] in state else _update)(master, p.grad, state, group)
                p.copy_(master)

    def _begun(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of a parameter before its first update."""
        master = {"master": p.float()} if p.dtype != torch.float32 else {}
        if self.eight_bit and moments.takes(p.numel()):
            return moments.begin(p) | master
        zeros = torch.zeros_like(p, dtype=torch.float32)
        return {"step": torch.zeros((), device=p.device), "exp_avg": zeros, "exp_avg_sq": zeros.clone()} | master


def _update(weight: torch.Tensor, grad: torch.Tensor, state: dict[str, torch.Tensor], group: Mapping[str, Any]) -> None:
    """One step of AdamW on a float32 tensor, in place."""
    adamw(
        [weight],
        [grad],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        fused=group["fused"],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def build_optimizer(policy: Policy, config: Optimizer) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (norms, biases) are not decayed.

    Its state is float32, or has moments in 8 bits where the recipe says so: weights in a lower precision get a float32
    copy (`MasterAdamW`).

    Raises:
        ConfigError: bitsandbytes is not installed, and moments are to have 8 bits.
    """
    eight_bit = config.moments == "8bit"
    if eight_bit:
        need_library("optimizer.moments")
    if policy.model.device.type == "cpu":
        keep_freed_memory()
    named = policy.trainable()
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    if not eight_bit and all(p.dtype == torch.float32 for _, p in named):
        return torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=True)  # one pass over memory, not ten
    return MasterAdamW(groups, lr=config.lr, betas=BETAS, eight_bit=eight_bit)


def learning_rate(config: Optimizer, step: int, steps: int) -> float:
    """Rate of 0-based `step` of `steps`: linear warm-up, then cosine down to `floor` of the peak, or constant.

    Example:
        >>> from vold.run.recipe import Optimizer
        >>> learning_rate(Optimizer(lr=1.0, warmup_steps=2, schedule="constant"), 0, 10)
        0.5
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    return config.lr * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def apply_update(policy: Policy, optimizer: torch.optim.Optimizer, *, lr: float, max_grad_norm: float) -> float:
    """Clip the accumulated gradient, take one step, clear the gradient. Returns the norm before clipping.

    A gradient of exactly 0 moves nothing: its step would be that of momentum and weight decay alone.

    Raises:
        Diverged: the gradient is not finite. The weights are left as they were.
    """
    parameters = [p for _, p in policy.trainable()]
    norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)))
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise Diverged(
            "the gradient is not finite; the weights were not changed",
            got=f"gradient norm {norm}",
            fix="lower the learning rate, or look at the last stored rollouts with `vold show`",
        )
    if norm > 0:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def check_finite(loss: float, *, step: int) -> None:
    """Refuse the update of a step whose loss is not finite.

    Raises:
        Diverged: naming the step.
    """
    if not math.isfinite(loss):
        raise Diverged(
            "the loss is not finite; the weights were not changed",
            where=f"step {step}",
            got=str(loss),
            fix="lower the learning rate; the last checkpoint is intact",
        )


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to use freed blocks of any size again. Returns whether it can be told (glibc can).

    Left alone, glibc returns blocks of more than 32 MiB to the system as soon as they are free, and every such tensor
    begins with pages that the system must clear. With 65,536 packed tokens that was a third of a step's time. The
    price is a higher peak of memory, as freed blocks rarely fit the next ones exactly.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, LARGEST) == 1 for which in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))
