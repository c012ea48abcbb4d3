"""Moments in 8 bits: by hand, through a stopped run, and beside the plan."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from killed import interrupted_at_update
from vold.errors import CheckpointError, ConfigError
from vold.model import moments
from vold.model.footprint import footprint
from vold.model.moments import SCALES
from vold.run.folders import latest_checkpoint
from vold.run.model_sections import Lora, Student
from vold.run.recipe import Optimizer
from vold.training.checkpoint import restore_state
from vold.training.distill import distill
from vold.training.optim import BETAS, MasterAdamW, apply_update, build_optimizer
from vold.training.sft import sft

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'vold[quant]'")


def test_an_update_is_that_of_adamw_with_moments_rounded_between_two() -> None:
    """By hand: 256 numbers share the largest as their scale, and each is one of the table's 256."""
    tables: Any = bitsandbytes.functional.create_dynamic_map
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 72, generator=generator)
    weight = torch.nn.Parameter(start.clone())
    ours = MasterAdamW([{"params": [weight], "weight_decay": 0.1}], lr=1e-2, betas=BETAS, eight_bit=True)
    p, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)

    def rounded(t: torch.Tensor, *, signed: bool) -> torch.Tensor:
        blocks = t.reshape(-1, 256)
        scales = blocks.abs().amax(1, keepdim=True)
        table: torch.Tensor = tables(signed=signed)
        return (table[(blocks / scales)[..., None].sub(table).abs().argmin(-1)] * scales).reshape(t.shape)

    for step in range(1, 4):
        gradient = torch.randn(start.shape, generator=generator)
        weight.grad = gradient.clone()
        ours.step()
        m, v = BETAS[0] * m + (1 - BETAS[0]) * gradient, BETAS[1] * v + (1 - BETAS[1]) * gradient**2
        first, second = m / (1 - BETAS[0] ** step), v / (1 - BETAS[1] ** step)
        p = p * (1 - 1e-2 * 0.1) - 1e-2 * first / (second.sqrt() + 1e-8)
        # Rounding may fall to the other side where a number lies between two of the table.
        apart = (weight.detach() - p).abs()
        assert float(apart.median()) < 1e-6 and float(apart.mean()) < 1e-5
        m, v = rounded(m, signed=True), rounded(v, signed=False)
    state = ours.state[weight]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.uint8
    assert state["exp_avg_scale"].shape == state["exp_avg_sq_scale"].shape == (18,)


def test_what_is_small_keeps_them_in_float32() -> None:
    weight = torch.nn.Parameter(torch.ones(4095))
    optimizer = MasterAdamW([{"params": [weight]}], lr=1e-2, betas=BETAS, eight_bit=True)
    weight.grad = torch.ones(4095)
    optimizer.step()
    assert optimizer.state[weight]["exp_avg"].dtype == torch.float32
    assert not optimizer.state[weight].keys() & {*SCALES}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "LEAST", 256)
    rule = {"optimizer": {"lr": 1e-3, "warmup_steps": 2, "moments": "8bit"}}
    recipes = []
    for home in (tmp_path / "whole", tmp_path / "broken"):
        recipes.append(tiny.recipe(home, student={"dtype": dtype}, sft=rule, distill=rule))
        tiny.write_traces(home, recipes[-1])
    for work in (sft, distill):
        finals = [work(recipes[0])]
        interrupted_at_update(4, partial(work, recipes[1]))
        finals.append(work(recipes[1]))
        for name in ("model.safetensors", "../step-000006/optimizer.safetensors"):
            first, second = ((final / name).read_bytes() for final in finals)
            assert first == second
    assert {*SCALES} <= {key.rsplit("/", 1)[1] for key in load_file(finals[0] / "../step-000006/optimizer.safetensors")}

    torn = latest_checkpoint(tmp_path / "whole" / "run" / "sft")
    assert torn is not None
    other = tiny.student()
    with pytest.raises(CheckpointError, match="another model"):
        monkeypatch.setattr(moments, "LEAST", 4096)
        other.freeze(("vision", "projector"))
        restore_state(torn.parent, other, build_optimizer(other, Optimizer(lr=1.0)))


def test_the_plan_counts_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "LEAST", 256)
    monkeypatch.setattr("vold.model.footprint._FOUND", {})  # other tests have planned this student with the real one
    for lora in (None, Lora(rank=300)):
        policy = tiny.student()
        policy.freeze(("vision", "projector"))
        if lora is not None:
            policy.add_lora(rank=lora.rank, alpha=lora.alpha, seed=0)
        optimizer = build_optimizer(policy, Optimizer(lr=1e-3, moments="8bit"))
        for _, p in policy.trainable():
            p.grad = torch.ones_like(p)
        apply_update(policy, optimizer, lr=1e-3, max_grad_norm=1.0)
        states = [s for p in optimizer.state for k, s in optimizer.state[p].items() if k not in ("step", "master")]
        planned = footprint(policy.model.config, "float32", Student(path="s", lora=lora))
        assert planned.moments == sum(s.nbytes for s in states)
        assert any(s.dtype == torch.uint8 for s in states)


def test_without_the_library_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed"):
        build_optimizer(tiny.student(), Optimizer(lr=1e-3, moments="8bit"))
