"""`vold balance`: how many copies, what is stored, and that a killed run gives the same set."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import tiny
from vold.cli import main
from vold.data.sources import open_tasks
from vold.errors import CheckpointError, ConfigError, DataError
from vold.run.files import cut_rows, read_jsonl, write_rows
from vold.run.recipe import PromptBalance, dump_recipe, recipe_from
from vold.run.records import to_json
from vold.training.balance import LABELS, balance, copies

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.recipe import Recipe

DIGITS = {"kind": "digits", "split": "train", "form": "text", "size": 10, "seed": 1}
J_SHAPE = [0] * 8 + [1] * 1 + [2] * 3 + [3] * 2 + [4] * 6
"""Rollouts of 4 that solved each of 20 problems."""


def section(**keys: Any) -> PromptBalance:
    raw = {"tasks": "unbalanced", "init": "demo:student", "sampling": {"max_new_tokens": 12}, "rollouts": 4}
    return PromptBalance.model_validate(raw | keys)


def rows_of(config: PromptBalance, correct: list[int] = J_SHAPE, seed: int = 1) -> dict[int, int]:
    rows: Counter[int] = Counter()
    for solved, times in zip(correct, copies(correct, config, seed), strict=True):
        rows[solved] += times
    return dict(rows)


def run(home: Path, tasks: dict[str, Any] = DIGITS, **keys: Any) -> Recipe:
    """The demo student solves some of these problems always, some never and some now and then."""
    raw = tiny.recipe_dict(home)
    raw["tasks"]["unbalanced"] = tasks
    raw["balance"] = {
        "tasks": "unbalanced",
        "init": "demo:student",
        "sampling": {"max_new_tokens": 40},
        "rollouts": 4,
        "batch_size": 3,
    } | keys
    return recipe_from(raw, where="test recipe")


# By hand: the most frequent end has 8 rows, so 1, 3 and 2 problems become 8, if 4 copies are allowed 4, 8 and 8.
@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({"max_copies": 100}, {0: 8, 1: 8, 2: 8, 3: 8, 4: 6}),
        ({}, {0: 8, 1: 4, 2: 8, 3: 8, 4: 6}),
        ({"max_copies": 2}, {0: 8, 1: 2, 2: 6, 3: 4, 4: 6}),
        ({"some_correct": 1}, {0: 8, 1: 1, 2: 3, 3: 2, 4: 6}),
        ({"some_correct": 1.5, "all_correct": 0}, {0: 8, 1: 2, 2: 5, 3: 3, 4: 0}),
        ({"all_incorrect": 0.25, "all_correct": 0.5}, {0: 2, 1: 3, 2: 3, 3: 3, 4: 3}),
        ({"all_correct": 2, "max_copies": 100}, {0: 8, 1: 12, 2: 12, 3: 12, 4: 12}),
    ],
)
def test_rows_of_each_pass_rate_by_hand(keys: dict[str, Any], rows: dict[int, int]) -> None:
    assert rows_of(section(**keys)) == rows


def test_copies_are_shared_evenly_and_the_seed_says_who_gets_one_more() -> None:
    config = section(max_copies=100)
    made = [copies(J_SHAPE, config, seed) for seed in range(20)]
    assert all(sorted(one[9:12]) == [2, 3, 3] for one in made)
    assert len({tuple(one[9:12]) for one in made}) == 3
    assert copies(J_SHAPE, config, 3) == made[3]


def test_keys_that_can_not_balance_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="greedy"):
        run(tmp_path, sampling={"max_new_tokens": 12, "temperature": 0})
    with pytest.raises(ConfigError, match="from 0 on"):
        run(tmp_path, some_correct=-1.0)


def test_labels_and_set_fit_together_and_stage_2_reads_the_set(tmp_path: Path) -> None:
    recipe = run(tmp_path, all_incorrect=1.5)
    file, summary = balance(recipe)
    labels = read_jsonl(tmp_path / "run" / "balance" / LABELS)
    assert recipe.balance is not None
    asked = {t.id: t for t in open_tasks(recipe.tasks, "unbalanced")}
    assert [row["task_id"] for row in labels] == list(asked)
    solved = {row["task_id"]: row["correct"] for row in labels}
    assert summary.before == tuple(sum(c == k for c in solved.values()) for k in range(5))
    assert len(set(solved.values())) > 2
    stored = tiny.opened({"kind": "jsonl", "path": str(file)})
    assert len(stored) == sum(summary.after) == int(1.5 * summary.before[0] + 0.5) + sum(summary.after[1:])
    assert len({t.id for t in stored}) == len(stored)
    for task in stored:
        name = task.id.partition("#")[0]
        first = asked[name]
        assert (task.messages, task.teacher_messages) == (first.messages, first.teacher_messages)
        assert (task.reference, task.grader) == (first.reference, first.grader)
        assert task.tags == {**first.tags, "correct": str(solved[name])}
    assert {t.id.partition("#")[0] for t in stored} == set(asked)
    assert json.loads((tmp_path / "run" / "balance" / "summary.json").read_text()) == to_json(summary)


def test_a_run_killed_between_and_within_batches_gives_the_same_set(tmp_path: Path) -> None:
    file, whole = balance(run(tmp_path, some_correct=2))
    bytes_before, stage = file.read_bytes(), tmp_path / "run" / "balance"
    labels = read_jsonl(stage / LABELS)
    for left in (0, 3, 5):
        shutil.rmtree(stage / "set")
        cut_rows(stage / LABELS, left)
        file, again = balance(run(tmp_path, some_correct=2))
        assert file.read_bytes() == bytes_before
        assert read_jsonl(stage / LABELS) == labels
        assert replace(again, seconds=0.0) == replace(whole, seconds=0.0)


def test_other_copies_keep_the_labels_and_other_rollouts_are_refused(tmp_path: Path) -> None:
    untrained = str(tmp_path / "student")
    balance(run(tmp_path, init=untrained))
    recipe = run(tmp_path, init=untrained, all_incorrect=2, max_copies=1)
    shutil.rmtree(untrained)  # labels that are all there need no model
    _, summary = balance(recipe)
    assert summary.after[0] == 2 * summary.before[0] > 0
    with pytest.raises(ConfigError, match=r"balance\.rollouts: 4 before, 2 now"):
        balance(run(tmp_path, init=untrained, rollouts=2))


def test_problems_that_changed_under_their_labels_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"id": f"q{i}", "prompt": f"digits 3 {i} . sum ?", "reference": 3 + i, "grader": "exact"} for i in range(4)]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = run(tmp_path, tasks={"kind": "jsonl", "path": str(data)})
    balance(recipe)
    data.write_text("".join(json.dumps(r) + "\n" for r in reversed(rows)))
    with pytest.raises(ConfigError, match=r"balance\.tasks: jsonl"):
        balance(recipe)


def test_a_damaged_set_is_refused_and_written_again(tmp_path: Path) -> None:
    file, _ = balance(run(tmp_path))
    whole = file.read_text()
    file.write_text(whole.replace('"reference": "', '"reference": "1'))
    with pytest.raises(CheckpointError, match=r"rows\.jsonl\n.*another hash\n.*repeat `vold balance`"):
        tiny.opened({"kind": "jsonl", "path": str(file)})
    balance(run(tmp_path))
    assert file.read_text() == whole
    assert len(tiny.opened({"kind": "jsonl", "path": str(file)})) == len(whole.splitlines())


def test_more_rollouts_than_there_are_is_no_label(tmp_path: Path) -> None:
    balance(run(tmp_path))
    file = tmp_path / "run" / "balance" / LABELS
    labels = read_jsonl(file)
    labels[2]["truncated"] = 5
    write_rows(file, labels)
    with pytest.raises(CheckpointError, match=r"labels\.jsonl: line 3\n.*5 of 4 rollouts"):
        balance(run(tmp_path))


def test_pictures_are_stored_pixel_by_pixel(tmp_path: Path) -> None:
    scene = {**DIGITS, "form": "image", "size": 3}
    file, _ = balance(run(tmp_path, tasks=scene, all_incorrect=1, all_correct=1))
    recipe = run(tmp_path, tasks=scene)
    assert recipe.balance is not None
    asked = {t.id: t for t in open_tasks(recipe.tasks, "unbalanced")}
    for task in tiny.opened({"kind": "jsonl", "path": str(file)}):
        first = asked[task.id.partition("#")[0]].messages[0]
        shown = task.messages[0].images
        assert [_pixels(i) for i in shown] == [_pixels(i) for i in first.images]
        assert len(shown) == 1
        assert task.messages[0].text == first.text


def _pixels(image: Image.Image) -> tuple[tuple[int, int], bytes]:
    return image.size, image.convert("RGB").tobytes()


def test_nothing_left_and_no_cold_start_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is left") as caught:
        balance(run(tmp_path, all_correct=0, all_incorrect=0, some_correct=0))
    assert "balance.all_correct" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"balance\.init"):
        balance(run(tmp_path / "other", init=None))


def test_the_verb_prints_the_histogram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(run(tmp_path)))
    assert main(["balance", str(recipe)]) == 0
    out = capsys.readouterr().out
    before = json.loads((tmp_path / "run" / "balance" / "summary.json").read_text())["before"]
    shown = [re.search(rf"{solved} of 4 \D+(\d+)", out) for solved in range(5)]
    assert [int(found[1]) for found in shown if found] == before
    assert "rows.jsonl" in out.replace("\n", "")
    assert main(["check", str(recipe)]) == 0
    assert "balance.tasks" in capsys.readouterr().out
