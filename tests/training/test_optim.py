"""The learning rate by hand, and what is and is not decayed."""

from __future__ import annotations

import pytest
import torch

import tiny
from vold.errors import TrainingError
from vold.run.recipe import Optimizer
from vold.training.optim import MasterAdamW, apply_update, build_optimizer, learning_rate


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


def test_bfloat16_weights_follow_a_float32_copy_that_plain_adamw_would_move() -> None:
    policy = tiny.student()
    policy.model.bfloat16()
    config = Optimizer(lr=1e-4, weight_decay=0.1)
    optimizer = build_optimizer(policy, config)
    ours = dict(policy.trainable())
    copies = {n: p.detach().float().requires_grad_() for n, p in ours.items()}
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in copies.values() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in copies.values() if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for n, p in ours.items():
            p.grad = torch.randn(p.shape, generator=generator)
            copies[n].grad = p.grad.clone()
        torch.nn.utils.clip_grad_norm_(copies.values(), 1.0)
        for group in reference.param_groups:
            group["lr"] = 1e-4
        reference.step()
        apply_update(policy, optimizer, lr=1e-4, max_grad_norm=1.0)
    for n, p in ours.items():
        torch.testing.assert_close(optimizer.state[p]["master"], copies[n].detach(), rtol=1e-6, atol=1e-8)
        assert torch.equal(p.detach(), optimizer.state[p]["master"].bfloat16())


def test_a_bfloat16_weight_is_moved_by_steps_below_its_own_spacing() -> None:
    """Below 1, bfloat16 numbers lie 1/256 apart. 100 steps of 1e-4 lead to 0.99 = 253.4/256."""
    weights = [torch.nn.Parameter(torch.ones(1, 1, dtype=torch.bfloat16)) for _ in range(2)]
    plain = torch.optim.AdamW([weights[0]], lr=1e-4, weight_decay=0.0)
    master = MasterAdamW([{"params": [weights[1]], "weight_decay": 0.0}], lr=1e-4, betas=(0.9, 0.98))
    for _ in range(100):
        for w, optimizer in zip(weights, (plain, master), strict=True):
            w.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert weights[0].item() == 1.0
    assert weights[1].item() == 253 / 256


def test_gradients_of_bfloat16_weights_are_summed_in_float32() -> None:
    """In bfloat16 a sum of 0.01s stops growing near 4; 0.01 itself is 0.010009765625 there."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    MasterAdamW([{"params": [weight]}], lr=1.0, betas=(0.9, 0.98))
    for _ in range(1000):
        (weight * torch.tensor(0.01, dtype=torch.bfloat16)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(10.009765625)
