"""Truncated rollouts: what was sampled from is what is learnt, in values, gradients and whole runs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from vold.engines.samplers.draw import Draw, truncated
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.padded import padded
from vold.engines.samplers.refilled import refilled
from vold.errors import ConfigError
from vold.model.policy import Policy
from vold.model.support import joined, support_of
from vold.objective import credit
from vold.training.distill import distill
from vold.training.learner import Learner
from vold.training.optim import build_optimizer
from vold.training.rollout import sample
from vold.training.step import update
from vold.types import Grade, Rollout, SamplingParams

CHANCES = torch.tensor([[0.1, 0.5, 0.25, 0.15, 0.0]])
CUT = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.7, "top_k": 9, "min_p": 0.05}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, {1: 0.5, 2: 0.25, 3: 0.15, 0: 0.1}),  # an impossible id is never kept
        ({"top_k": 2}, {1: 2 / 3, 2: 1 / 3}),
        ({"min_p": 0.3}, {1: 5 / 9, 2: 2.5 / 9, 3: 1.5 / 9}),
        ({"top_p": 0.75}, {1: 2 / 3, 2: 1 / 3}),  # 0.5 + 0.25 is enough
        ({"top_p": 0.76}, {1: 5 / 9, 2: 2.5 / 9, 3: 1.5 / 9}),
        ({"top_p": 0.01}, {1: 1.0}),  # one id always stays
        ({"top_k": 3, "top_p": 0.8}, {1: 2 / 3, 2: 1 / 3}),  # 0.75 of the 0.9 that top_k leaves is 0.83
        ({"top_k": 3, "top_p": 0.84}, {1: 5 / 9, 2: 2.5 / 9, 3: 1.5 / 9}),
    ],
)
def test_what_is_kept_by_hand(params: dict[str, Any], kept: dict[int, float]) -> None:
    asked = SamplingParams(1, **params)
    logp, ids = truncated(CHANCES.log(), asked, asked.most_kept or 5)
    assert ids[0].tolist() == [*kept, *[-1] * (len(ids[0]) - len(kept))]
    expected = torch.tensor([[kept.get(i, 0.0) for i in range(5)]])
    torch.testing.assert_close(logp.exp(), expected, rtol=1e-5, atol=0)


def test_both_ways_to_sample_make_the_same_rows() -> None:
    policy = tiny.student()
    policy.model.eval()
    prompts = [policy.chat.prompt(t.messages) for t in tiny.opened(tiny.TASKS["train"])[:3]]
    params = SamplingParams(8, top_p=0.8, top_k=7, kept=7)
    numbers = torch.rand((6, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = [
        dict(way(policy, Draw(policy, params), prompts, 2, 6, lambda rows: numbers[:rows]))  # all start together
        for way in (padded, refilled)
    ]
    for row in range(6):
        one, other = made[0][row], made[1][row]
        assert one.support_ids is not None and other.support_ids is not None
        assert one.ids.tolist() == other.ids.tolist() and one.support_ids.tolist() == other.support_ids.tolist()


def some(home: Path, **distill: Any) -> tuple[Policy, Learner[Any], list[Rollout], Any]:
    made = tiny.recipe(home, distill={"sampling": CUT, "objective": {"method": "grpo"}, **distill})
    assert made.distill is not None
    policy = tiny.student()
    policy.model.eval()
    tasks = tiny.opened(tiny.TASKS["train"])[:2]
    step = tiny.step([policy.chat.prompt(t.messages) for t in tasks], tasks=tasks)
    raw = sample(InProcessSampler(policy), policy.chat, made.distill, step, range(2))
    scores = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0)
    graded = [dataclasses.replace(r, grade=Grade(s, None, "")) for r, s in zip(raw, scores, strict=True)]
    done = credit(made.distill.objective, graded, 0)
    return policy, Learner(made.distill, policy, build_optimizer(policy, made.distill.optimizer)), done, step


@pytest.mark.parametrize("token_separable", [True, False])
def test_an_update_has_the_gradient_of_the_distribution_over_the_kept_ids(
    token_separable: bool, tmp_path: Path
) -> None:
    """Surrogate and entropy bonus, written again from full logits that are minus infinity at all other ids."""
    surrogate = {} if token_separable else {"ratio": "sequence", "aggregate": "sequence_mean"}
    objective = {"method": "grpo", "entropy": {"coefficient": 0.3}, "surrogate": surrogate}
    policy, learner, rollouts, step = some(tmp_path, objective=objective)
    tokens, loss = sum(len(r.completion.ids) for r in rollouts), torch.zeros(())
    for r in rollouts:
        c, n = r.completion, len(r.completion.ids)
        assert c.support_ids is not None and r.advantage is not None and c.support_ids.shape[1] <= 9
        logits = policy.model(input_ids=torch.tensor([[*r.prompt_ids, *c.ids]])).logits[0, -n - 1 : -1]
        there = torch.zeros(logits.shape, dtype=torch.bool)
        for t, ids in enumerate(c.support_ids):
            there[t, ids[ids >= 0].tolist()] = True
        logq = logits.masked_fill(~there, float("-inf")).log_softmax(-1)
        logp = logq.gather(1, torch.tensor(c.ids.tolist())[:, None])[:, 0]
        assert logp.tolist() == pytest.approx(c.logps.tolist(), abs=1e-5)
        entropy = -(logq.exp() * logq.masked_fill(~there, 0.0)).sum(-1)
        gain = (logp - logp.detach()).exp() * torch.tensor(r.advantage)
        scale = 1 / tokens if token_separable else 1 / (n * len(rollouts))
        loss = loss - gain.sum() * scale - 0.3 * entropy.sum() / tokens
    loss.backward()
    expected = {n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    seen: dict[str, torch.Tensor] = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None})
    )
    learner.config = learner.config.model_copy(
        update={"optimizer": learner.config.optimizer.model_copy(update={"max_grad_norm": 1e9})}
    )
    row, _ = update(learner, rollouts, step, tiny.NO_TEACHER)
    assert row.mismatch is not None and row.mismatch < 1e-5
    assert row.loss == pytest.approx(loss.item(), rel=1e-4)
    assert row.entropy is not None and row.entropy < math.log(9)
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-3, atol=1e-5)


def test_rows_of_several_widths_are_one_array() -> None:
    rows = [np.array([[1, 2]], np.int32), np.array([[3], [4]], np.int32)]
    assert joined(rows).tolist() == [[1, 2], [3, -1], [4, -1]]
    assert support_of([], torch.device("cpu")) is None


def test_a_whole_run_learns_from_what_it_sampled_from(tmp_path: Path) -> None:
    """With reference, old log-probs and two epochs: before the first update sampler and trainer agree."""
    objective = {
        "method": "vold",
        "reference": {"coefficient": 0.1},
        "surrogate": {"importance_cap": 2.0},
        "entropy": {"coefficient": 0.01},
    }
    tiny.recipe_dict(tmp_path)
    made = tiny.recipe(
        tmp_path,
        distill={
            "init": str(tmp_path / "student"), "steps": 2, "updates": {"epochs": 2},
            "sampling": CUT, "objective": objective,
        },
    )  # fmt: skip
    distill(made)
    rows = [json.loads(line) for line in (tmp_path / "run/distill/metrics.jsonl").read_text().splitlines()]
    assert all(r["mismatch"] < 1e-5 and r["entropy"] < math.log(9) for r in rows)
    assert rows[0]["reference_kl"] < rows[1]["reference_kl"]


@pytest.mark.parametrize(
    "objective",
    [{"method": "gkd"}, {"method": "minillm"}, {"method": "prefix_teach"}, {"method": "gkd", "reading": "top_k"}],
)
def test_objectives_that_compare_whole_distributions_are_refused(objective: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="truncated rollouts are learnt from"):
        tiny.recipe(tmp_path, distill={"sampling": CUT, "objective": objective})
    plain = {**CUT, "top_p": 1.0, "top_k": None, "min_p": 0.0}
    tiny.recipe(tmp_path, distill={"sampling": plain, "objective": objective})


def test_without_top_k_256_ids_are_kept_at_most_in_rollouts_and_any_number_elsewhere(tmp_path: Path) -> None:
    made = tiny.recipe(tmp_path, eval={"tasks": ["text"], "sampling": {"max_new_tokens": 4, "top_p": 0.9}})
    assert made.eval is not None
    assert made.eval.sampling.params(told=True).kept == 256
    assert made.eval.sampling.params().most_kept == 0
