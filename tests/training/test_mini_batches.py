"""Several updates on the rollouts of one step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from vold.engines.samplers.inprocess import InProcessSampler
from vold.errors import ConfigError, TrainingError
from vold.model.policy import Policy
from vold.objective import credit
from vold.run.metrics import UpdateMetrics
from vold.run.recipe import Distill
from vold.run.stage_sections import Updates
from vold.training.learner import Learner
from vold.training.mini_batches import mini_batches
from vold.training.optim import build_optimizer
from vold.training.prompted import Step
from vold.training.rollout import sample
from vold.training.step import update
from vold.types import Completion, Grade, Rollout, TokenScores

SCORES = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0)


def plain(group: int, source: Any = "student") -> Rollout:
    return Rollout("t", group, (1,), Completion((5,), (-0.1,), (1,), "stop"), Grade(0.0, None, ""), source=source)


def scaled(rollout: Rollout, factor: float) -> Rollout:
    assert rollout.advantage is not None
    return dataclasses.replace(rollout, advantage=rollout.advantage * factor)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 6), st.integers(0, 7), st.integers(0, 5))
def test_every_epoch_has_every_rollout_once(parts: int, epochs: int, groups: int, traces: int, seed: int) -> None:
    """Parts differ by one at most in rollouts of each source, and a group is divided only where a part ends."""
    rollouts = [plain(g) for g in range(groups) for _ in range(3)]
    rollouts += [plain(groups + i, "teacher") for i in range(traces)]
    made = list(mini_batches(Updates(mini_batches=parts, epochs=epochs), rollouts, seed))
    again = list(mini_batches(Updates(mini_batches=parts, epochs=epochs), rollouts, seed))
    assert [[id(r) for r in part] for part in made] == [[id(r) for r in part] for part in again]
    assert sorted(id(r) for part in made for r in part) == sorted(epochs * [id(r) for r in rollouts])
    if parts <= 3 * groups:
        each = [made[e * parts : (e + 1) * parts] for e in range(epochs)]
        for epoch in each:
            for source, count in (("student", 3 * groups), ("teacher", traces)):
                sizes = [sum(r.source == source for r in part) for part in epoch]
                assert sum(sizes) == count and max(sizes) - min(sizes) <= 1
            cut = sum(len({id(p) for p in epoch for r in p if r.group == g}) - 1 for g in range(groups))
            assert cut <= parts - 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    rollouts = [plain(g) for g in range(8)]

    def order(seed: int) -> list[list[int]]:
        made = [r.group for part in mini_batches(Updates(mini_batches=4, epochs=2), rollouts, seed) for r in part]
        return [made[:8], made[8:]]

    assert order(1)[0] != order(1)[1] and order(1)[0] != order(2)[0]


def test_there_are_no_more_mini_batches_than_rollouts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more mini-batches than rollouts"):
        tiny.recipe(tmp_path, distill={"prompts_per_step": 2, "rollouts": 2, "updates": {"mini_batches": 5}})


@pytest.mark.parametrize(("method", "updates"), [("sod", 4), ("grpo", 1), (None, 1)])
def test_sod_makes_the_four_updates_of_its_run(method: str | None, updates: int, tmp_path: Path) -> None:
    objective: dict[str, Any] = {"method": method}
    if method is None:
        objective |= {"outcome": {}, "surrogate": {}}
    made = tiny.recipe(tmp_path, distill={"objective": objective})
    assert made.distill is not None and made.distill.all_updates == Updates(mini_batches=updates)
    made = tiny.recipe(tmp_path, distill={"objective": objective, "updates": {"epochs": 2}})
    assert made.distill is not None and made.distill.all_updates == Updates(epochs=2)


class Bench:
    """A tiny student, six of its rollouts, and what updates make of it."""

    def __init__(self, home: Path, **changes: Any) -> None:
        optimizer = {"lr": 3e-2, "warmup_steps": 0, "schedule": "constant"}
        made = tiny.recipe(home, distill={"objective": {"method": "grpo"}, "optimizer": optimizer, **changes})
        assert made.distill is not None
        self.config: Distill = made.distill
        self.policy: Policy = tiny.student()
        tasks = tiny.opened(tiny.TASKS["train"])[:2]
        self.step: Step = tiny.step([self.policy.chat.prompt(t.messages) for t in tasks], tasks=tasks)
        sampler = InProcessSampler(self.policy)
        raw = sample(sampler, self.policy.chat, self.config, self.step, range(2))
        graded = [dataclasses.replace(r, grade=Grade(s, None, "")) for r, s in zip(raw, SCORES, strict=True)]
        self.rollouts = credit(self.config.objective, graded, 0)
        self.learner = Learner(self.config, self.policy, build_optimizer(self.policy, self.config.optimizer))

    def update(self, rollouts: list[Rollout] | None = None) -> UpdateMetrics:
        return update(self.learner, self.rollouts if rollouts is None else rollouts, self.step, tiny.NO_TEACHER)[0]

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for _, p in self.policy.trainable()]


def test_mini_batches_are_updates_after_each_other(tmp_path: Path) -> None:
    """Weights and moments of three mini-batches are those of three single updates on the same rollouts, bit for bit."""
    whole, single = Bench(tmp_path, updates={"mini_batches": 3, "epochs": 2}), Bench(tmp_path)
    row = whole.update()
    rows = [single.update(part) for part in mini_batches(Updates(mini_batches=3, epochs=2), single.rollouts, 3)]
    assert row.updates == len(rows) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), single.weights(), strict=True))
    assert row.trained_tokens == sum(r.trained_tokens for r in rows)
    assert row.loss == pytest.approx(math.fsum(r.loss for r in rows) / 6)
    assert row.policy_loss == pytest.approx(math.fsum(r.policy_loss or 0.0 for r in rows) / 6)
    assert row.grad_norm == pytest.approx(math.fsum(r.grad_norm for r in rows) / 6)
    assert row.mismatch == rows[0].mismatch


def test_the_second_epoch_has_a_ratio_and_clips(tmp_path: Path) -> None:
    """After one update log-probs have moved, the sampler's have not: with tight bounds the second update clips."""
    tight = {"method": "grpo", "surrogate": {"clip_low": 1e-4, "clip_high": 1e-4}}
    once, twice = Bench(tmp_path, objective=tight), Bench(tmp_path, objective=tight, updates={"epochs": 2})
    first, both = once.update(), twice.update()
    assert first.clip_fraction == 0 and first.ratio == pytest.approx(1, abs=1e-4)
    again = once.update()  # the same rollouts, with the weights after the first update
    assert again.clip_high_fraction and again.clip_low_fraction
    assert both.clip_high_fraction == pytest.approx(again.clip_high_fraction / 2)
    assert both.clip_low_fraction == pytest.approx(again.clip_low_fraction / 2)
    assert both.mismatch == first.mismatch != again.mismatch


def test_a_mini_batch_without_a_signal_moves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, updates={"mini_batches": 2})
    silent = [scaled(r, 0.0) if r.group else r for r in bench.rollouts]
    parts = [{r.group for r in part} for part in mini_batches(Updates(mini_batches=2), silent, 3)]
    assert sorted(map(sorted, parts)) == [[0], [1]]
    assert bench.update(silent).updates == 1


def test_a_gradient_of_zero_moves_nothing(tmp_path: Path) -> None:
    """With a coefficient of 0 the teacher's loss is looked at and teaches nothing: after a step with an advantage,
    momentum and weight decay would go on."""
    objective = {"method": "vold", "teacher_loss": {"coefficient": 0.0}}
    bench = Bench(tmp_path, objective=objective)
    bench.rollouts = credit(bench.config.objective, with_gaps(bench.rollouts, [0.5] * 6), 0)
    assert bench.update().updates == 1
    failed = [dataclasses.replace(r, grade=Grade(0.0, None, "")) for r in bench.rollouts]
    before = bench.weights()
    row = bench.update(credit(bench.config.objective, failed, 0))
    assert (row.updates, row.grad_norm) == (0, 0) and row.teacher_gap is not None
    assert all(torch.equal(a, b) for a, b in zip(before, bench.weights(), strict=True))


def with_gaps(rollouts: list[Rollout], gaps: list[float]) -> list[Rollout]:
    """The rollouts with a teacher that gives every token of each so many nats less than the student."""
    return [
        dataclasses.replace(r, teacher=TokenScores(r.completion.logps - gap))
        for r, gap in zip(rollouts, gaps, strict=True)
    ]


def test_every_mini_batch_has_the_shares_of_the_mixture(tmp_path: Path) -> None:
    """Half of each part's loss is the mean over its tokens of the student's, the other half that over the teacher's,
    however many each has. At a gap of g nats, k2 is g² / 2."""
    objective = {"method": "gkd", "mix": {"student_share": 0.5}, "teacher_loss": {"estimator": "k2", "coefficient": 1}}
    still = {"lr": 1e-12, "warmup_steps": 0, "schedule": "constant"}
    bench = Bench(tmp_path, objective=objective, optimizer=still, updates={"mini_batches": 2})
    gaps = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    sources: list[Literal["student", "teacher"]] = ["student", "teacher", "teacher", "student", "teacher", "student"]
    whole = [
        dataclasses.replace(r, group=i, source=source)
        for i, (r, source) in enumerate(zip(with_gaps(bench.rollouts, gaps), sources, strict=True))
    ]
    bench.step = tiny.step([bench.step.prompted[r.group].prompt for r in bench.rollouts])
    bench.rollouts = credit(bench.config.objective, whole, 0)
    parts = list(mini_batches(Updates(mini_batches=2), bench.rollouts, bench.step.seed))

    def mean(part: list[Rollout], source: str) -> float:
        found = [(len(r.completion.ids), gaps[r.group] ** 2 / 2) for r in part if r.source == source]
        return sum(n * value for n, value in found) / sum(n for n, _ in found)

    expected = [(mean(part, "student") + mean(part, "teacher")) / 2 for part in parts]
    assert bench.update().teacher_loss == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_likelihood_of_all_there_is_leaves_no_rollout_out(tmp_path: Path) -> None:
    """Also where no rollout has an advantage."""
    bench = Bench(tmp_path, objective={"method": "sft"})
    logps = [logp for r in bench.rollouts for logp in r.completion.logps.tolist()]
    row = bench.update()
    assert row.trained_tokens == len(logps) and row.updates == 1
    assert row.loss == pytest.approx(-math.fsum(logps) / len(logps), rel=1e-4)


def test_a_failure_between_two_updates_leaves_no_step_to_save(tmp_path: Path) -> None:
    """The first update has moved the weights when the second fails: they are of no step."""
    bench = Bench(tmp_path, updates={"mini_batches": 2})
    second = list(mini_batches(Updates(mini_batches=2), bench.rollouts, 3))[1]
    spoilt = [scaled(r, math.nan) if any(r is s for s in second) else r for r in bench.rollouts]
    before = bench.weights()
    with pytest.raises(TrainingError, match="not finite"):
        bench.update(spoilt)
    assert not all(torch.equal(a, b) for a, b in zip(before, bench.weights(), strict=True))
    assert bench.learner.updated == 0
