"""Stage 1, data: the teacher answers text prompts, or a data set's own solutions are taken instead.

Answers are stored as they are made, batch by batch, every one of them with its verdict; the filters are applied when
the cold start reads them. A killed run goes on after the last whole batch and gives the same traces.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.data.sources import open_tasks
from vold.engines.grade import grade
from vold.engines.teachers.teachers import TeacherHandle, open_teachers
from vold.errors import ConfigError, DataError
from vold.model.loading import load_student
from vold.run.console import Bar
from vold.run.directory import open_stage, record_data
from vold.run.files import append_jsonl, keep_rows, read_jsonl, write_json
from vold.run.order import seed_of
from vold.types import Completion, Finish, Grade, SamplingParams, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe

    Answered = tuple[Chat, tuple[int, ...], tuple[int, ...], Finish]
    """Whose ids they are, ids with the end token, which of them the model chose, and why it ended."""
    Answer = Callable[[Sequence[Task], int], list[Answered]]
    """Answers some tasks, given the place of the first."""

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

    With `traces.answers: data` the answers are the solutions that come with the tasks, in the student's tokens.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError: see `vold.errors`.
    """
    config = recipe.traces
    if config is None:
        raise ConfigError("this recipe has no `traces` section", where="traces")
    directory = open_stage(recipe, "traces")
    file = directory / FILE
    tasks = open_tasks(recipe.tasks, config.tasks, references=False)
    record_data(directory, "traces.tasks", tasks.cards)
    student = student or load_student(recipe)
    answer = _own(student) if config.answers == "data" else _taught(recipe, student, tasks)
    rows = read_jsonl(file)
    done = len(rows) // config.batch_size * config.batch_size if len(rows) < len(tasks) else len(tasks)
    keep_rows(file, rows[:done])
    began = time.monotonic()
    with Bar("traces", len(tasks), done) as bar:
        for start in range(done, len(tasks), config.batch_size):
            part = tasks[start : start + config.batch_size]
            append_jsonl(file, [_row(t, answered) for t, answered in zip(part, answer(part, start), strict=True)])
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


def _taught(recipe: Recipe, student: Policy, tasks: Sequence[Task]) -> Answer:
    """Answers of each task's own teacher."""
    config = recipe.traces
    assert config is not None
    assert config.sampling is not None
    sampling = config.sampling
    for task in tasks:
        if task.teacher_messages is None:
            raise DataError("this task has no text view for the teacher", where=f"task {task.id}")
    teachers = open_teachers(recipe, student)

    def answer(part: Sequence[Task], start: int) -> list[Answered]:
        seed = seed_of(recipe.run.seed, "traces", start)
        params = SamplingParams(sampling.max_new_tokens, sampling.temperature, seed)
        completions = teachers.sample(part, params)
        return [in_the_students_ids(teachers.of(t), c) for t, c in zip(part, completions, strict=True)]

    def in_the_students_ids(teacher: TeacherHandle, c: Completion) -> Answered:
        chat = teacher.backend.chat
        if teacher.aligner is None:
            return chat, tuple(c.ids.tolist()), tuple(map(int, c.action_mask)), c.finish
        ids = student.chat.tokens(chat.text(c.ids)) + (student.chat.end_id,) * (c.finish == "stop")
        return student.chat, ids, (1,) * len(ids), c.finish

    return answer


def _own(student: Policy) -> Answer:
    """Solutions that come with the tasks."""

    def answer(part: Sequence[Task], start: int) -> list[Answered]:
        for task in part:
            if task.response is None:
                raise DataError(
                    "this task comes without a solution",
                    where=f"task {task.id}",
                    fix="set traces.answers=teacher, or give its row a `response`",
                )
        chat = student.chat
        found = [(*chat.tokens(task.response or ""), chat.end_id) for task in part]
        return [(chat, ids, (1,) * len(ids), "stop") for ids in found]

    return answer


def _row(task: Task, answered: Answered) -> dict[str, Any]:
    chat, ids, mask, finish = answered
    completion = Completion(ids, (0.0,) * len(ids), mask, finish)
    verdict = grade(task, chat, completion) if task.reference else Grade(0.0, None, "no reference")
    return {
        "task_id": task.id,
        "response": chat.text(ids),
        "response_ids": list(ids),
        "action_mask": list(mask),
        "finish": finish,
        "score": verdict.score,
        "extracted": verdict.extracted,
        "note": verdict.note,
    }


def read_traces(recipe: Recipe) -> list[Trace]:
    """The stored answers that pass the recipe's filters, with their tasks.

    Raises:
        DataError: `vold traces` has not been run to its end, or nothing passes the filters.
    """
    config = recipe.traces
    if config is None:
        raise ConfigError("this recipe has no `traces` section", where="traces")
    file = recipe.run.dir / "traces" / FILE
    tasks = open_tasks(recipe.tasks, config.tasks, references=False)
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
