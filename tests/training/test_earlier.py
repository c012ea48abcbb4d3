"""The student as it was: reference and old log-probs, and what a run makes of them."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.engines.samplers.inprocess import InProcessSampler
from vold.errors import TrainingError
from vold.model.batching import collate
from vold.model.policy import Policy
from vold.run.folders import latest_checkpoint
from vold.training.distill import distill
from vold.training.earlier import Earlier, log_probs
from vold.training.prompted import Step
from vold.training.rollout import sample
from vold.training.stage import Training, enter_stage
from vold.types import Rollout

CASES = {"all weights": {}, "lora": {"lora": {"rank": 4, "alpha": 8}}}


def open_run(home: Path, student: dict[str, Any], objective: dict[str, Any], **more: Any) -> Training[Any]:
    """A stage that starts from the tiny student."""
    changes = {"init": str(home / "student"), "objective": {"method": "grpo", **objective}, **more}
    made = tiny.recipe(home, student=student, distill=changes)
    return Training(enter_stage(made, "distill", made.distill), str(home / "student"))


def some_rollouts(run: Training[Any]) -> tuple[list[Rollout], Step]:
    tasks = tiny.opened(tiny.TASKS["train"])[:2]
    step = tiny.step([run.policy.chat.prompt(t.messages) for t in tasks], tasks=tasks)
    return sample(InProcessSampler(run.policy), run.policy.chat, run.stage.config, step, range(2)), step


def move(policy: Policy) -> None:
    """Change every weight that is trained."""
    torch.manual_seed(7)
    with torch.no_grad():
        for _, p in policy.trainable():
            p.add_(0.3 * torch.randn_like(p))


def plainly(policy: Policy, rollout: Rollout, step: Step) -> list[float]:
    c = rollout.completion
    batch = collate([step.prompted[rollout.group].prompt], [c.ids], [c.action_mask], policy.chat.pad_id)
    with torch.no_grad():
        return policy.logprobs(batch)[0].tolist()


@pytest.mark.parametrize("case", CASES)
def test_the_reference_stays_what_the_stage_began_with(case: str, tmp_path: Path) -> None:
    """After the student has moved, the reference says what the model on the disk says, and the student is as it was."""
    run = open_run(tmp_path, CASES[case], {"reference": {"coefficient": 0.1}})
    earlier = Earlier(run)
    assert (earlier.copy is None) == (case == "lora") and len(earlier.modules) == (case != "lora")
    trainable = [n for n, _ in run.policy.trainable()]
    move(run.policy)
    rollouts, step = some_rollouts(run)
    done = earlier.score(rollouts, step)
    fresh = Policy.load(str(tmp_path / "student"))
    for r in done:
        assert r.reference_logp is not None and r.old_logp is None
        assert r.reference_logp.tolist() == pytest.approx(plainly(fresh, r, step), abs=1e-5)
        assert plainly(run.policy, r, step) == pytest.approx(r.completion.logps.tolist(), abs=1e-4)
        assert not np.allclose(r.reference_logp, r.completion.logps, atol=1e-2)
    assert [n for n, _ in run.policy.trainable()] == trainable


def test_frozen_weights_are_there_once(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, {"reference": {"coefficient": 0.1}})
    copy = Earlier(run).copy
    assert copy is not None
    ours = {id(p) for p in run.policy.model.parameters()}
    theirs = {n: id(p) in ours for n, p in copy.model.named_parameters()}
    trained = {n for n, _ in run.policy.trainable()}
    assert {n for n, shared in theirs.items() if not shared} == trained
    assert not any(p.requires_grad for n, p in copy.model.named_parameters() if not theirs[n])


def test_a_projector_that_is_trained_beside_adapters_needs_a_copy(tmp_path: Path) -> None:
    run = open_run(tmp_path, {**CASES["lora"], "freeze": ["vision"]}, {"reference": {"coefficient": 0.1}})
    assert Earlier(run).copy is not None


@pytest.mark.parametrize(("updates", "asked"), [({}, False), ({"epochs": 2}, True), ({"mini_batches": 2}, True)])
def test_old_log_probs_are_those_of_the_step_before_its_first_update(
    updates: dict[str, int], asked: bool, tmp_path: Path
) -> None:
    run = open_run(tmp_path, {}, {"surrogate": {"importance_cap": 2.0}}, updates=updates)
    rollouts, step = some_rollouts(run)
    move(run.policy)  # as if the sampler had been another engine
    done = Earlier(run).score(rollouts, step)
    for r in done:
        assert r.reference_logp is None and (r.old_logp is not None) == asked
        if r.old_logp is not None:
            assert r.old_logp.tolist() == pytest.approx(plainly(run.policy, r, step), abs=1e-5)


def test_what_a_tool_wrote_and_what_a_teacher_wrote_is_not_asked_about(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, {"reference": {"coefficient": 0.1}})
    rollouts, step = some_rollouts(run)
    c = rollouts[0].completion
    mask = np.arange(len(c.ids)) != 1
    rollouts[0] = dataclasses.replace(rollouts[0], completion=dataclasses.replace(c, action_mask=mask))
    rollouts[1] = dataclasses.replace(rollouts[1], source="teacher")
    found = [r.reference_logp for r in Earlier(run).score(rollouts, step)]
    assert [i for i, values in enumerate(found) if values is None] == [1]
    assert found[0] is not None and np.isnan(found[0]).tolist() == (~mask).tolist()


def test_a_reference_without_a_number_is_named(tmp_path: Path) -> None:
    run = open_run(tmp_path, {}, {"reference": {"coefficient": 0.1}})
    rollouts, step = some_rollouts(run)
    with torch.no_grad():
        for _, p in run.policy.trainable():
            p.fill_(math.nan)
    with pytest.raises(TrainingError, match="no finite log-prob"):
        log_probs(run.learner, run.policy, rollouts, step)


ALL = {
    "objective": {
        "method": "vold",
        "reference": {"coefficient": 0.05},
        "entropy": {"coefficient": 0.01},
        "surrogate": {"importance_cap": 2.0},
    },
    "updates": {"mini_batches": 2, "epochs": 2},
}


def test_a_run_with_all_of_them_that_is_killed_ends_in_the_same_weights(tmp_path: Path) -> None:
    """Killed after its first checkpoint, in the middle of its steps. The student leaves its reference step by step."""
    rows: list[dict[str, Any]] = []
    for home, kill in (("whole", 10**9), ("broken", 45)):
        tiny.recipe_dict(tmp_path / home)
        made = tiny.recipe(tmp_path / home, distill={**ALL, "init": str(tmp_path / home / "student")})
        directory = tmp_path / home / "run" / "distill"
        if not in_a_process_killed_at(kill, partial(distill, made)):
            assert latest_checkpoint(directory) is not None and not (directory / "final").is_dir()
            distill(made)
        rows = rows or [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert weights_of(tmp_path / "whole/run/distill") == weights_of(tmp_path / "broken/run/distill")
    assert all(r["entropy_loss"] < 0 and r["reference_loss"] >= 0 and r["updates"] == 4 for r in rows)
    assert rows[-1]["reference_kl"] > rows[0]["reference_kl"] >= 0
    assert all(r["importance"] == pytest.approx(1, abs=1e-3) for r in rows if "importance" in r)
