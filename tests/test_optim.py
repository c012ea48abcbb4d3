"""The learning rate by hand, and what is and is not decayed."""

from __future__ import annotations

import pytest
import torch

import tiny
from vold.config import Optimizer
from vold.errors import TrainingError
from vold.optim import apply_update, build_optimizer, learning_rate


def test_warm_up_then_cosine_to_the_floor() -> None:
    config = Optimizer(lr=2.0, warmup_steps=4, floor=0.1)
    # Four steps up to the peak; the 9 intervals from step 4 to step 13 are half a cosine from 2 down to 0.2.
    assert [learning_rate(config, s, 14) for s in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert learning_rate(config, 4, 14) == pytest.approx(2.0)
    assert learning_rate(config, 7, 14) == pytest.approx(0.2 + 1.8 * 0.75)  # cos(60 degrees) = 1/2
    assert learning_rate(config, 10, 14) == pytest.approx(0.2 + 1.8 * 0.25)
    assert learning_rate(config, 13, 14) == pytest.approx(0.2)


def test_a_run_shorter_than_its_warm_up_never_leaves_it() -> None:
    config = Optimizer(lr=1.0, warmup_steps=10)
    assert [learning_rate(config, s, 2) for s in range(2)] == pytest.approx([0.1, 0.2])


def test_only_matrices_decay_and_frozen_parts_are_not_there() -> None:
    policy = tiny.student()
    policy.freeze(("vision", "projector"))
    decayed, free = build_optimizer(policy, Optimizer(lr=1.0, weight_decay=0.5)).param_groups
    assert decayed["weight_decay"] == 0.5
    assert free["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(policy.trainable())
    assert not any("visual" in name for name, _ in policy.trainable())


def test_the_gradient_is_clipped_and_a_broken_one_changes_nothing() -> None:
    policy = tiny.student()
    parameters = [p for _, p in policy.trainable()]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    count = sum(p.numel() for p in parameters)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.full_like(p, 2.0)
    norm = apply_update(policy, optimizer, lr=0.5, max_grad_norm=1.0)
    assert norm == pytest.approx(2.0 * count**0.5, rel=1e-5)
    # Clipped to norm 1, each of the `count` equal entries is 1 / sqrt(count); the rate is 0.5.
    for p, old in zip(parameters, before, strict=True):
        torch.testing.assert_close(old - p.detach(), torch.full_like(p, 0.5 / count**0.5), atol=1e-6, rtol=1e-3)
    assert all(p.grad is None for p in parameters)

    kept = [p.detach().clone() for p in parameters]
    parameters[0].grad = torch.full_like(parameters[0], float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        apply_update(policy, optimizer, lr=0.5, max_grad_norm=1.0)
    assert all(torch.equal(p, k) for p, k in zip(parameters, kept, strict=True))
