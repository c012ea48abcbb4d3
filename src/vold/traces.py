"""Stage 1, data: the teacher answers text prompts.

Answers are stored as they are made, batch by batch, every one of them with its verdict; the filters are applied when
the cold start reads them. A killed run goes on after the last whole batch and gives the same traces.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.engines import Teachers
from vold.errors import ConfigError, DataError
from vold.graders import get_grader
from vold.models import load_student, seed_of
from vold.progress import Bar
from vold.rundir import append_jsonl, keep_rows, open_stage, read_jsonl, write_json
from vold.samplers.turns import last_turn
from vold.tasks import open_tasks
from vold.types import SamplingParams, Task

if TYPE_CHECKING:
    from pathlib import Path

    from vold.config import Recipe
    from vold.policy import Policy

FILE = "traces.jsonl"


@dataclass(frozen=True)
class Trace:
    """A teacher's answer that passed the filters: the task, response ids with the end token, and which of them are the
    teacher's own (1) and which a tool's (0)."""

    task: Task
    response_ids: tuple[int, ...]
    action_mask: tuple[int, ...]


def make_traces(recipe: Recipe, *, student: Policy | None = None) -> Path:
    """Answer every task of `traces.tasks` with the teacher and store the answers. Returns the file.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError: see `vold.errors`.
    """
    config = recipe.traces
    if config is None:
        raise ConfigError("this recipe has no `traces` section", where="traces")
    directory = open_stage(recipe, "traces")
    file = directory / FILE
    tasks = open_tasks(config.tasks)
    for task in tasks:
        if task.teacher_messages is None:
            raise DataError("this task has no text view for the teacher", where=f"task {task.id}")
    student = student or load_student(recipe)
    teachers = Teachers(recipe, student)
    rows = read_jsonl(file)
    done = len(rows) // config.batch_size * config.batch_size if len(rows) < len(tasks) else len(tasks)
    keep_rows(file, rows[:done])
    began = time.monotonic()
    with Bar("traces", len(tasks), done) as bar:
        for start in range(done, len(tasks), config.batch_size):
            part = tasks[start : start + config.batch_size]
            params = SamplingParams(
                max_new_tokens=config.sampling.max_new_tokens,
                temperature=config.sampling.temperature,
                seed=seed_of(recipe.run.seed, "traces", start),
            )
            new: list[dict[str, Any]] = []
            for task, completion in zip(part, teachers.answer(part, params), strict=True):
                voice = teachers.voice(task)
                chat, ids, mask = voice.chat, completion.ids, completion.action_mask
                text, answer = chat.text(ids), chat.text(last_turn(ids, mask))
                if voice.aligner is not None:
                    ids = student.chat.tokens(text) + (student.chat.end_id,) * (completion.finish == "stop")
                    mask = (1,) * len(ids)
                grade = get_grader(task.grader)(answer, task.reference, finish=completion.finish)
                new.append(
                    {
                        "task_id": task.id,
                        "response": text,
                        "response_ids": list(ids),
                        "action_mask": list(mask),
                        "finish": completion.finish,
                        "score": grade.score,
                        "extracted": grade.extracted,
                        "note": grade.note,
                    }
                )
            append_jsonl(file, new)
            bar.advance(len(part))
    rows = read_jsonl(file)
    kept = [r for r in rows if _passes(r, config.max_tokens, config.keep)]
    write_json(
        directory / "summary.json",
        {
            "answers": len(rows),
            "correct": sum(r["score"] == 1.0 for r in rows),
            "truncated": sum(r["finish"] != "stop" for r in rows),
            "kept": len(kept),
            "tokens_kept": sum(len(r["response_ids"]) for r in kept),
            "seconds": round(time.monotonic() - began, 1),
        },
    )
    return file


def read_traces(recipe: Recipe) -> list[Trace]:
    """The stored answers that pass the recipe's filters, with their tasks.

    Raises:
        DataError: `vold traces` has not been run to its end, or nothing passes the filters.
    """
    config = recipe.traces
    if config is None:
        raise ConfigError("this recipe has no `traces` section", where="traces")
    file = recipe.run.dir / "traces" / FILE
    tasks = open_tasks(config.tasks)
    rows = read_jsonl(file)
    if len(rows) != len(tasks) or any(r["task_id"] != t.id for r, t in zip(rows, tasks, strict=True)):
        raise DataError(
            "the teacher's traces are not all there",
            where=str(file),
            got=f"{len(rows)} answers to {len(tasks)} prompts",
            fix="run `vold traces` with this recipe; it goes on where it stopped",
        )
    kept = [
        Trace(t, tuple(r["response_ids"]), tuple(r["action_mask"]))
        for t, r in zip(tasks, rows, strict=True)
        if _passes(r, config.max_tokens, config.keep)
    ]
    if not kept:
        raise DataError(
            "no trace passes the filters",
            where=str(file),
            got=f"{len(rows)} answers, none kept",
            fix="raise traces.max_tokens or traces.sampling.max_new_tokens, or set traces.keep=all",
        )
    return kept


def _passes(row: dict[str, Any], max_tokens: int, keep: str) -> bool:
    """Whole answers within the length limit; correct ones only where the recipe asks for it."""
    whole = row["finish"] == "stop" and len(row["response_ids"]) <= max_tokens
    return whole and (keep == "all" or row["score"] == 1.0)
