"""Stage 1, data: the teacher answers text prompts, or a data set's own solutions are taken instead.

Answers are stored as they are made, batch by batch, every one of them with its verdict; the filters are applied when
the cold start reads them. A killed run goes on after the last whole batch and gives the same traces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.data.sources import open_tasks
from vold.engines.grade import grade
from vold.engines.launch.serving import serving
from vold.engines.teachers.teachers import TeacherHandle, open_teachers
from vold.errors import DataError
from vold.model.loading import load_student, load_students_chat
from vold.run.console import console
from vold.run.directory import open_stage, record_data, works_in_run
from vold.run.files import read_json, write_json
from vold.run.mistakes import no_section
from vold.run.order import seed_of
from vold.run.records import Bit, Share, TokenId
from vold.run.summaries import TracesSummary
from vold.training.stored_rows import rows_of, stored_rows
from vold.types import Completion, Finish, Grade, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vold.model.chat import Chat
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe, Traces

    Answer = Callable[[Sequence[Task], int], list[tuple[Chat, Completion]]]
    """Answers some tasks, given the place of the first: whose ids they are, and the answer."""

FILE = "traces.jsonl"


@dataclass(frozen=True)
class TraceRow:
    """A row of traces/traces.jsonl: an answer, with the end token among its ids, and its verdict. `action_mask` is 1 on
    tokens that the teacher wrote and 0 on those of a tool."""

    task_id: str
    response: str
    response_ids: tuple[TokenId, ...]
    action_mask: tuple[Bit, ...]
    finish: Finish
    score: Share
    extracted: str | None
    note: str

    def __post_init__(self) -> None:
        if len(self.response_ids) != len(self.action_mask):
            raise ValueError(f"{len(self.response_ids)} ids and {len(self.action_mask)} places in their mask")

    @classmethod
    def of(cls, task: Task, chat: Chat, completion: Completion) -> TraceRow:
        """That of an answer in `chat`'s ids; one without a reference scores 0."""
        verdict = grade(task, chat, completion) if task.reference else Grade(0.0, None, "no reference")
        return cls(
            task_id=task.id,
            response=chat.text(completion.ids),
            response_ids=tuple(completion.ids.tolist()),
            action_mask=tuple(map(int, completion.action_mask)),
            finish=completion.finish,
            score=verdict.score,
            extracted=verdict.extracted,
            note=verdict.note,
        )

    def fault(self, config: Traces) -> str:
        """Why the filters of a recipe leave it out; empty for a whole answer within the length limit that, where the
        recipe asks for it, is correct."""
        if self.finish != "stop":
            return "truncated"
        if len(self.response_ids) > config.max_tokens:
            return "too long"
        return "wrong" if config.keep == "correct" and self.score != 1.0 else ""


@dataclass(frozen=True)
class Trace:
    """A teacher's answer that passed the filters: the task, response ids with the end token, which of them are the
    teacher's own (1) and which a tool's (0), and its place in the file."""

    task: Task
    response_ids: tuple[int, ...]
    action_mask: tuple[int, ...]
    where: str


@works_in_run("traces")
def make_traces(recipe: Recipe, *, student: Policy | None = None) -> Path:
    """Answer every task of `traces.tasks` with the teacher and store the answers. Returns the file.

    With `traces.answers: data` the answers are the solutions that come with the tasks, in the student's tokens. Where
    the filters keep none of them, all are stored, and the error says why.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError: see `vold.errors`.
    """
    config = recipe.traces
    if config is None:
        raise no_section(recipe, "traces")
    directory = open_stage(recipe, "traces")
    file = directory / FILE
    tasks = open_tasks(recipe.tasks, config.tasks, references=False)
    record_data(directory, "traces.tasks", tasks.cards)
    began = time.monotonic()
    rows = stored_rows(file, TraceRow, tasks, config.batch_size, lambda: _answering(recipe, config, student, tasks))
    kept = [r for r in rows if not r.fault(config)]
    summary = TracesSummary(
        answers=len(rows),
        correct=sum(r.score == 1.0 for r in rows),
        truncated=sum(r.finish != "stop" for r in rows),
        kept=len(kept),
        tokens_kept=sum(len(r.response_ids) for r in kept),
        seconds=round(time.monotonic() - began, 1),
    )
    write_json(directory / "summary.json", summary)
    console.print(_kept(rows, config))
    if not kept:
        raise _nothing_kept(rows, config, file)
    return file


def _kept(rows: Sequence[TraceRow], config: Traces) -> str:
    """How many answers the filters keep, and why the others are left out."""
    faults = Counter(fault for r in rows if (fault := r.fault(config)))
    told = ", ".join(f"{n} {fault}" for fault, n in faults.most_common())
    return f"{len(rows) - faults.total()} of {len(rows)} kept" + (f": {told}" if told else "")


def _nothing_kept(rows: Sequence[TraceRow], config: Traces, file: Path) -> DataError:
    (fault, _), *_ = Counter(r.fault(config) for r in rows).most_common()
    longest = config.sampling.max_new_tokens if config.sampling is not None else config.max_tokens
    cures = {
        "truncated": f"hardly one ends in {longest} tokens: raise traces.sampling.max_new_tokens, in another run.dir",
        "too long": f"raise traces.max_tokens above {min(len(r.response_ids) for r in rows)}",
        "wrong": "set traces.keep=all, or take a teacher that solves these problems",
    }
    return DataError("no trace passes the filters", where=str(file), got=_kept(rows, config), fix=cures[fault])


@contextlib.contextmanager
def _answering(
    recipe: Recipe, config: Traces, student: Policy | None, tasks: Sequence[Task]
) -> Iterator[Callable[[Sequence[Task], int], list[TraceRow]]]:
    if student is None:
        student = load_student(recipe) if _teacher_is_here(recipe, config) else load_students_chat(recipe)
    with serving(recipe, "traces") as recipe:
        answer = _solutions(student) if config.answers == "data" else _teachers(recipe, config, student, tasks)
        yield lambda part, start: [
            TraceRow.of(task, *answered) for task, answered in zip(part, answer(part, start), strict=True)
        ]


def _teacher_is_here(recipe: Recipe, config: Traces) -> bool:
    """Whether a teacher that answers is in this process, and may be the student itself."""
    spec = recipe.teacher
    return (
        config.answers != "data"
        and spec is not None
        and any(one.server is None for one in (spec, *spec.routes.values()))
    )


def _teachers(recipe: Recipe, config: Traces, student: Policy, tasks: Sequence[Task]) -> Answer:
    """Answers of each task's own teacher."""
    sampling = config.sampling
    assert sampling is not None  # the section sees to that
    for task in tasks:
        if task.teacher_messages is None:
            raise DataError("this task has no text view for the teacher", where=f"task {task.id}")
    teachers = open_teachers(recipe, student)

    def answer(part: Sequence[Task], start: int) -> list[tuple[Chat, Completion]]:
        seed = seed_of(recipe.run.seed, "traces", start)
        completions = teachers.sample(part, sampling.params(seed))
        return [in_the_students_ids(teachers.of(t), c) for t, c in zip(part, completions, strict=True)]

    def in_the_students_ids(teacher: TeacherHandle, c: Completion) -> tuple[Chat, Completion]:
        chat = teacher.backend.chat
        if teacher.aligner is None:
            # after a stop string the student is to end, as after the end token
            ended = c.finish != "stop" or c.ids[-1] == chat.end_id
            return chat, c if ended else _written((*c.ids.tolist(), chat.end_id), c.finish)
        ids = student.chat.tokens(chat.text(c.ids)) + (student.chat.end_id,) * (c.finish == "stop")
        return student.chat, _written(ids, c.finish)

    return answer


def _solutions(student: Policy) -> Answer:
    """Solutions that come with the tasks."""
    chat = student.chat

    def answer(part: Sequence[Task], start: int) -> list[tuple[Chat, Completion]]:
        for task in part:
            if task.response is None:
                raise DataError(
                    "this task comes without a solution",
                    where=f"task {task.id}",
                    fix="set traces.answers=teacher, or give its row a `response`",
                )
        return [(chat, _written((*chat.tokens(t.response or ""), chat.end_id), "stop")) for t in part]

    return answer


def _written(ids: tuple[int, ...], finish: Finish) -> Completion:
    """A text that was not sampled in these ids: it has no log-probs."""
    return Completion(ids, (0.0,) * len(ids), (1,) * len(ids), finish)


def read_traces(recipe: Recipe) -> list[Trace]:
    """The stored answers that pass the recipe's filters, with their tasks.

    Raises:
        DataError: `vold traces` has not been run to its end, or nothing passes the filters.
        CheckpointError: a row is damaged, or not the one of its task.
    """
    config = recipe.traces
    if config is None:
        raise no_section(recipe, "traces")
    file = recipe.run.dir / "traces" / FILE
    tasks = open_tasks(recipe.tasks, config.tasks, references=False)
    rows = rows_of(file, TraceRow, tasks)
    if len(rows) != len(tasks):
        raise DataError(
            "the teacher's traces are not all there",
            where=str(file),
            got=f"{len(rows)} answers to {len(tasks)} prompts",
            fix="run `vold traces` with this recipe; it goes on where it stopped",
        )
    kept = [
        Trace(t, r.response_ids, r.action_mask, f"{file}: line {n}")
        for n, (t, r) in enumerate(zip(tasks, rows, strict=True), 1)
        if not r.fault(config)
    ]
    if not kept:
        raise _nothing_kept(rows, config, file)
    return kept


def note_filters(recipe: Recipe, kept: Sequence[Trace]) -> None:
    """Write down what the filters keep now, where they are others than when the answers were made."""
    file = recipe.run.dir / "traces" / "summary.json"
    if file.is_file():
        was = read_json(file, TracesSummary)
        tokens = sum(len(t.response_ids) for t in kept)
        if (now := dataclasses.replace(was, kept=len(kept), tokens_kept=tokens)) != was:
            write_json(file, now)
