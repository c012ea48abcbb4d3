"""Stored rollouts from rows as pages show them, and back, for tests that write some by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from vold.run.rollouts import TOKENIZER, RolloutTask, load_rollouts, store_rollouts, store_tokenizer
from vold.types import Completion, Grade, Rollout, TokenScores
from vold.types.arrays import frozen

Row = dict[str, Any]


def speller(texts: list[str]) -> str:
    """A tokenizer.json by which id i is written as the i-th text."""
    return str(Tokenizer(models.WordLevel({t: i for i, t in enumerate(texts)}, unk_token=texts[0])).to_str())


def store_rows(directory: Path, step: int, rows: list[Row]) -> Path:
    """Rows with any of the keys of `StoredRollout.row`; a row's texts, where it has some, decide over its ids."""
    texts = list(dict.fromkeys(t for row in rows for t in row.get("tokens", ())))
    if texts:
        (directory / TOKENIZER).unlink(missing_ok=True)
        store_tokenizer(directory, lambda: speller(texts))
    rollouts, questions = [], {}
    for place, row in enumerate(rows):
        group = row.get("group", place)
        ids = [texts.index(t) for t in row["tokens"]] if row.get("tokens") else row.get("ids", [0] * len(row["logp"]))
        teacher = row.get("teacher_logp")
        completion = Completion(ids, row.get("logp", [-1.0] * len(ids)), [1] * len(ids), row.get("finish", "stop"))
        grade = Grade(row.get("score", 0.0), row.get("extracted"), row.get("note", ""))
        questions[group] = RolloutTask(row.get("prompt", ""), row.get("reference", ""))
        rollouts.append(
            Rollout(
                row.get("task_id", "t"),
                group,
                (),
                completion,
                grade,
                None if teacher is None else TokenScores(teacher),
                advantage=row.get("advantage") or None,
                source=row.get("source", "student"),
                token_values={k: frozen(v, "float32") for k, v in row.get("token_values", {}).items()},
                rollout_values=row.get("rollout_values", {}),
            )
        )
    return store_rollouts(directory, step, rollouts, questions)


def stored_rows(file: Path) -> list[Row]:
    """The rollouts of a file as rows."""
    return [s.row() for s in load_rollouts(file)]


def change_rows(file: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    """Replace a file of stored rollouts by what a function makes of its rows."""
    store_rows(file.parent, int(file.stem.removeprefix("step-")), change(stored_rows(file)))
