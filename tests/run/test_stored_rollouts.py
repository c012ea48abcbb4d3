"""Rollouts on disk: what was stored comes back, from one file and without a model."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stored import speller
from vold.errors import DataError
from vold.run.rollouts import (
    TOKENIZER,
    RolloutTask,
    load_rollouts,
    store_rollouts,
    store_tokenizer,
    stored_steps,
)
from vold.types import Completion, Grade, Rollout, TokenScores

QUESTIONS = {0: RolloutTask("1 + 2 ?", "3"), 4: RolloutTask("“2 + 2” ?\n\ud800", "4")}


def rollouts() -> list[Rollout]:
    """One of a teacher and a tool, with every value there can be; one of neither; one trace."""
    c = Completion((5, 0, 3), (-0.25, 0.0, -1.5), (1, 0, 1), "stop", ((5, 1), (0, 0), (3, 2)))
    scores = TokenScores((-0.5, math.nan, -math.inf), candidate_logp=((-1, -2),) * 3)
    credit = {"advantage": (0.5, 0, -0.5), "live_weight": (0, 0, 0), "teacher_weight": (1, 0, 0)}
    values = {"step_weight": (1, 0, 0.5), "zero": (0, 0, 0)}
    return [
        Rollout("a", 0, (7, 8), c, Grade(0.5, "3", "graded"), scores, token_values={
            name: np.array(v, np.float32) for name, v in values.items()
        }, rollout_values={"cut": 2.0, "gain": math.inf}, **credit),  # type: ignore[arg-type]
        Rollout("a", 0, (7, 8), Completion((1,), (-0.1,), (1,), "length"), Grade(0.0, None, "no answer")),
        Rollout("b", 4, (9,), Completion((2, 2), (-1, -2), (1, 1)), Grade(1.0, "4", "equal"), source="teacher"),
    ]  # fmt: skip


def kept(r: Rollout) -> Rollout:
    """What of a rollout is stored."""
    teacher = None if r.teacher is None else TokenScores(r.teacher.logp)
    return dataclasses.replace(r, teacher=teacher, completion=dataclasses.replace(r.completion, candidate_ids=None))


def test_what_was_stored_comes_back_read_only(tmp_path: Path) -> None:
    file = store_rollouts(tmp_path, 12, rollouts(), QUESTIONS)
    assert [f.name for f in tmp_path.iterdir()] == [file.name] == ["step-000012.safetensors"]
    found = load_rollouts(file)
    assert [s.rollout for s in found] == [kept(r) for r in rollouts()]
    assert [s.question for s in found] == [QUESTIONS[0], QUESTIONS[0], QUESTIONS[4]]
    with pytest.raises(ValueError, match="read-only"):
        found[0].rollout.completion.ids[0] = 1


def test_tokens_are_spelled_when_somebody_looks(tmp_path: Path) -> None:
    file = store_rollouts(tmp_path, 0, rollouts(), QUESTIONS)
    assert load_rollouts(file)[0].texts() == ["<5>", "<0>", "<3>"]
    store_tokenizer(tmp_path, lambda: speller(["zero", " one", "two", "3", "4", "<five>"]))
    store_tokenizer(tmp_path, lambda: pytest.fail("it is written once"))
    assert [s.texts() for s in load_rollouts(file)] == [["<five>", "zero", "3"], [" one"], ["two", "two"]]


def test_a_row_for_pages_has_plain_numbers(tmp_path: Path) -> None:
    first, second, _ = (s.row() for s in load_rollouts(store_rollouts(tmp_path, 0, rollouts(), QUESTIONS)))
    assert (first["prompt"], first["reference"], first["score"], first["extracted"]) == ("1 + 2 ?", "3", 0.5, "3")
    assert (first["ids"], first["logp"], first["teacher_logp"]) == ([5, 0, 3], [-0.25, 0.0, -1.5], [-0.5, None, -1e9])
    assert first["token_values"] == {"step_weight": [1.0, 0.0, 0.5], "zero": [0.0, 0.0, 0.0]}
    assert first["rollout_values"] == {"cut": 2.0, "gain": None}
    assert (second["teacher_logp"], second["advantage"], second["finish"]) == (None, [], "length")


def test_stored_steps_are_in_order_and_nothing_else_is_one(tmp_path: Path) -> None:
    home = tmp_path / "distill" / "rollouts"
    for step in (10, 2):
        store_rollouts(home, step, rollouts(), QUESTIONS)
    (home / "step-x.safetensors").write_text("")
    (home / TOKENIZER).write_text("{}")
    assert list(stored_steps(tmp_path)) == [2, 10]
    assert stored_steps(tmp_path / "absent") == {}


@pytest.mark.parametrize("cut", [0, 7, -1])
def test_a_file_that_is_not_whole_is_an_error(tmp_path: Path, cut: int) -> None:
    file = store_rollouts(tmp_path, 0, rollouts(), QUESTIONS)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match="no stored rollouts"):
        load_rollouts(file)
    with pytest.raises(DataError, match="no stored rollouts"):
        load_rollouts(tmp_path / "absent.safetensors")


def test_no_bit_of_a_file_can_turn_unseen(tmp_path: Path) -> None:
    file = store_rollouts(tmp_path, 0, rollouts(), QUESTIONS)
    content, before, refused = file.read_bytes(), load_rollouts(file), 0
    for place in range(len(content)):
        turned = bytearray(content)
        turned[place] ^= 1
        file.write_bytes(turned)
        try:
            assert load_rollouts(file) == before
        except DataError:
            refused += 1
    assert refused >= len(content) - len("sha256")  # without its name there is no digest to compare with


def test_reading_loads_no_model(tmp_path: Path) -> None:
    file = store_rollouts(tmp_path, 0, rollouts(), QUESTIONS)
    code = (
        "import sys, pathlib; from vold.run.rollouts import load_rollouts\n"
        f"assert len(load_rollouts(pathlib.Path({str(file)!r}))[0].texts()) == 3\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
