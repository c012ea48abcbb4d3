"""GKD's mixture: which prompts and traces a step has, and that a killed run meets the same ones again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from killed import in_a_process_killed_at, weights_of
from stored import stored_rows
from vold.errors import ConfigError, DataError
from vold.run.recipe import Recipe, recipe_from
from vold.training.distill import distill
from vold.training.trace_mixture import TraceMixture, adopt, own_prompts
from vold.types import Completion, Grade, Prompt, Rollout, Task, TokenScores


def gkd(home: Path, share: float = 0.5, **changes: Any) -> Recipe:
    objective = {"method": "gkd", "mix": {"student_share": share}}
    start = str(home / "student")
    return tiny.recipe(home, distill={"objective": objective, "init": start, "prompts_per_step": 4} | changes)


@pytest.mark.parametrize(
    ("share", "prompts", "own"), [(0, 4, 0), (0.01, 4, 1), (0.5, 4, 2), (0.99, 4, 3), (1, 4, 4), (0.5, 1, 1)]
)
def test_so_many_prompts_are_the_students(share: float, prompts: int, own: int, tmp_path: Path) -> None:
    config = gkd(tmp_path, share, prompts_per_step=prompts).distill
    assert config is not None
    assert own_prompts(config) == own


def ask(task: Task) -> Prompt | None:
    return tiny.teacher().chat.prompt(task.teacher_messages or ())


def test_a_steps_traces_are_distinct_graded_and_numbered(tmp_path: Path) -> None:
    recipe = gkd(tmp_path)
    tiny.write_traces(tmp_path, recipe)
    mixture = TraceMixture(recipe, tiny.student(), ask)
    assert recipe.distill is not None
    prompted, rollouts = mixture.step(recipe.distill, 0, 2)
    assert [r.group for r in rollouts] == [2, 3, 4, 5, 6, 7]  # two prompts' worth of three
    assert len({r.task_id for r in rollouts}) == 6
    assert all(r.source == "teacher" and r.grade.score == 1.0 for r in rollouts)
    assert [p.task.id for p in prompted] == [r.task_id for r in rollouts]
    assert [p.prompt.ids for p in prompted] == [r.prompt_ids for r in rollouts]
    assert all(p.teacher_prompt for p in prompted)
    again = TraceMixture(recipe, tiny.student(), ask).step(recipe.distill, 0, 2)[1]
    assert again == rollouts
    assert mixture.step(recipe.distill, 1, 2)[1] != rollouts


def test_a_trace_was_sampled_from_its_teacher() -> None:
    c = Completion((5, 2), (0.0, 0.0), (1, 1), "stop")
    mine = Rollout("t", 0, (1,), c, Grade(0, None, ""), TokenScores((-1.0, -2.0)))
    theirs = Rollout("t", 1, (1,), c, Grade(1, None, ""), TokenScores((-1.0, -2.0)), source="teacher")
    assert [r.completion.logps.tolist() for r in adopt([mine, theirs])] == [[0.0, 0.0], [-1.0, -2.0]]


def test_a_killed_mixture_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole, broken = gkd(tmp_path / "a", steps=4), gkd(tmp_path / "b", steps=4)
    tiny.write_traces(tmp_path / "a", whole)
    tiny.write_traces(tmp_path / "b", broken)
    distill(whole)
    assert not in_a_process_killed_at(17, lambda: distill(broken))
    assert in_a_process_killed_at(10**9, lambda: distill(broken))
    assert weights_of(tmp_path / "a" / "run" / "distill") == weights_of(tmp_path / "b" / "run" / "distill")
    rows = stored_rows(tmp_path / "a" / "run" / "distill" / "rollouts" / "step-000000.safetensors")
    assert [r["source"] for r in rows] == ["student"] * 6 + ["teacher"] * 6


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_either_end_of_the_mixture_runs(share: float, tmp_path: Path) -> None:
    recipe = gkd(tmp_path, share, steps=1)
    tiny.write_traces(tmp_path, recipe)
    assert distill(recipe).is_dir()


def test_a_mixture_needs_finished_traces(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not all there"):
        distill(gkd(tmp_path, steps=1))
    raw = tiny.recipe_dict(tmp_path)
    raw["distill"]["objective"] = {"method": "gkd"}
    del raw["traces"]
    with pytest.raises(ConfigError, match="add a `traces` section"):
        recipe_from(raw, where="test recipe")
