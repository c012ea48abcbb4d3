"""The update rule: AdamW, warm-up and decay, and a guard in front of the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from vold.errors import TrainingError

if TYPE_CHECKING:
    from vold.config import Optimizer
    from vold.policy import Policy


def build_optimizer(policy: Policy, config: Optimizer) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (norms, biases) are not decayed."""
    named = policy.trainable()
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)  # one pass over memory, not ten


def learning_rate(config: Optimizer, step: int, steps: int) -> float:
    """Rate of 0-based `step` of `steps`: linear warm-up, then cosine down to `floor` of the peak, or constant.

    Example:
        >>> from vold.config import Optimizer
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

    Raises:
        TrainingError: the gradient is not finite. The weights are left as they were.
    """
    parameters = [p for _, p in policy.trainable()]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise TrainingError(
            "the gradient is not finite; the weights were not changed",
            got=f"gradient norm {norm}",
            fix="lower the learning rate, or look at the last stored rollouts with `vold show`",
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def check_finite(loss: torch.Tensor, *, step: int) -> None:
    """Refuse a loss that is not finite before it is back-propagated.

    Raises:
        TrainingError: naming the step.
    """
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            "the loss is not finite; the weights were not changed",
            where=f"step {step}",
            got=str(loss.item()),
            fix="lower the learning rate; the last checkpoint is intact",
        )
