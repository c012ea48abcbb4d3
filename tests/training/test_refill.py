"""Dynamic sampling: groups that teach nothing make room for further prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.data.worlds.digits import problems, solution
from vold.engines.teachers.teachers import no_teachers
from vold.errors import ConfigError
from vold.run.folders import latest_checkpoint
from vold.training.distill import distill
from vold.training.problems import Problems
from vold.training.prompted import Step
from vold.training.rollout import Sampled, StudentRollouts
from vold.training.stage import Training, enter_stage
from vold.types import Completion, Prompt, Rollout, SamplingParams

ANSWERS = [solution(p, "a") for p in problems("train", 12, 1)]


class Scripted:
    """Answers `right[i]` of the rollouts of problem i correctly, and remembers what it was asked."""

    def __init__(self, run: Training[Any], right: dict[str, int]) -> None:
        chat = run.policy.chat
        tasks = tiny.opened(tiny.TASKS["train"])
        self.right = {chat.prompt(t.messages).ids: right[t.id] for t in tasks}
        self.ids = {chat.prompt(t.messages).ids: chat.tokens(a) for t, a in zip(tasks, ANSWERS, strict=True)}
        self.end, self.asked = chat.end_id, list[tuple[int, int]]()

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        self.asked.append((len(prompts), params.first_row))
        return [[self._one(p.ids, i < self.right[p.ids]) for i in range(n)] for p in prompts]

    def _one(self, prompt: tuple[int, ...], right: bool) -> Completion:
        ids = [*(self.ids[prompt] if right else ()), self.end]
        return Completion(ids, [-0.1] * len(ids), [1] * len(ids), "stop")


def sampled(home: Path, right: int | dict[str, int], **distill: Any) -> tuple[Sampled, Scripted, Step]:
    """The rollouts of step 0, of 3 prompts and 2 rollouts each."""
    changes = {"init": str(home / "student"), "objective": {"method": "grpo"}, "prompts_per_step": 3, "rollouts": 2}
    made = tiny.recipe(home, distill={**changes, **distill})
    run = Training(enter_stage(made, "distill", made.distill), str(home / "student"))
    ids = [t.id for t in tiny.opened(tiny.TASKS["train"])]
    student = StudentRollouts(run)
    student.sampler = script = Scripted(run, dict.fromkeys(ids, right) if isinstance(right, int) else right)
    step = Problems(run, no_teachers()).step(0)
    return student.sample(step, lambda rollouts: None), script, step


def groups(rollouts: Sequence[Rollout]) -> list[int]:
    return sorted({r.group for r in rollouts})


def ids_of(step: Step) -> list[str]:
    return [p.task.id for p in step.prompted]


def test_a_group_that_teaches_nothing_makes_room_for_the_next_problem_in_reserve(tmp_path: Path) -> None:
    """Of problems 0 1 2, 1 is solved always; reserve 3 never, 4 sometimes: 0 2 4 stay, in three rounds."""
    _, _, plain = sampled(tmp_path, 1, refill=3)
    order = ids_of(plain)
    assert plain.own == 3 and plain.spare == 9 and len(set(order)) == 12
    right = dict.fromkeys(order, 1) | {order[1]: 2, order[3]: 0}
    found, script, step = sampled(tmp_path, right, refill=3)
    assert ids_of(step) == order
    assert (groups(found.rollouts), groups(found.dropped), found.silent) == ([0, 2, 4], [1, 3], 0)
    assert [r.task_id for r in found.rollouts] == [order[g] for g in (0, 0, 2, 2, 4, 4)]
    assert script.asked == [(3, 0), (1, 6), (1, 8)]  # numbers of first rows: random numbers go by group


def test_what_is_missing_at_the_end_the_first_of_them_make_up(tmp_path: Path) -> None:
    """Nobody solves anything: one round of three further problems, and the step is of the groups it began with."""
    found, script, _ = sampled(tmp_path, 0, refill=1)
    assert (groups(found.rollouts), groups(found.dropped), found.silent) == ([0, 1, 2], [3, 4, 5], 3)
    assert script.asked == [(3, 0), (3, 6)]


def test_a_reserve_that_ends_ends_the_rounds(tmp_path: Path) -> None:
    """There are 12 problems: 3 and 9 in reserve, in rounds of 3."""
    found, script, _ = sampled(tmp_path, 0, refill=50)
    assert len(script.asked) == 4 and found.silent == 3 and groups(found.dropped) == list(range(3, 12))


def test_without_refill_nobody_looks(tmp_path: Path) -> None:
    found, script, step = sampled(tmp_path, 0)
    assert (step.spare, len(script.asked), found.dropped, found.silent) == (0, 1, [], None)


def test_steps_have_reserves_of_their_own_and_the_epochs_order_stays(tmp_path: Path) -> None:
    changes = {"init": str(tmp_path / "student"), "objective": {"method": "grpo"}, "prompts_per_step": 3}
    made = [tiny.recipe(tmp_path, distill={**changes, **more}) for more in ({}, {"refill": 2})]
    runs = [Training(enter_stage(m, "distill", m.distill), str(tmp_path / "student")) for m in made]
    plain, refilled = (Problems(run, no_teachers()) for run in runs)
    for number in range(4):
        assert ids_of(refilled.step(number))[:3] == ids_of(plain.step(number))
    assert ids_of(refilled.step(1)) == ids_of(refilled.step(1))
    assert ids_of(refilled.step(0))[3:] != ids_of(refilled.step(1))[3:]


def test_a_killed_run_that_refills_ends_in_the_same_weights(tmp_path: Path) -> None:
    """An untrained student solves nothing, so that every step with GRPO asks for more."""
    objective = {"method": "grpo", "entropy": {"coefficient": 0.01}}
    for home, kill in (("whole", 10**9), ("broken", 45)):
        tiny.recipe_dict(tmp_path / home)
        start = str(tmp_path / home / "student")
        made = tiny.recipe(tmp_path / home, distill={"init": start, "objective": objective, "refill": 2})
        if not in_a_process_killed_at(kill, partial(distill, made)):
            assert latest_checkpoint(tmp_path / home / "run/distill") is not None
            distill(made)
    assert weights_of(tmp_path / "whole/run/distill") == weights_of(tmp_path / "broken/run/distill")
    rows = [json.loads(line) for line in (tmp_path / "whole/run/distill/metrics.jsonl").read_text().splitlines()]
    assert all(r["groups_refilled"] > 0 and r["groups_silent"] >= 0 for r in rows)


@pytest.mark.parametrize("refill", [0, -1])
def test_rounds_are_counted_from_one(refill: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        tiny.recipe(tmp_path, distill={"refill": refill})
