"""A row a task, made batch by batch and stored as it is made: what `traces` and `balance` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from vold.run.console import Bar
from vold.run.files import append_jsonl, bad_row, cut_rows, read_records
from vold.run.folders import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vold.data.sources import Tasks
    from vold.types import Task


class OfTask(Protocol):
    """A row that names its task."""

    @property
    def task_id(self) -> str:
        """The task."""
        ...


Row = TypeVar("Row", bound=OfTask)


def stored_rows(
    file: Path,
    kind: type[Row],
    tasks: Tasks,
    batch_size: int,
    maker: Callable[[], AbstractContextManager[Callable[[Sequence[Task], int], Sequence[Row]]]],
) -> list[Row]:
    """The row of every task: from the file as far as it holds whole batches, then made and appended to it.

    A batch is made in one piece or again, so a killed run gives the same rows as one that was never killed.

    Args:
        file: one row a line, in the order of the tasks.
        kind: the dataclass of a row.
        tasks: all of them.
        batch_size: tasks that are answered together.
        maker: gives what makes the rows of some tasks, given the place of the first; opened only if a row is missing,
            and left when all are there.

    Raises:
        CheckpointError: a row is damaged, or not the one of its task.
    """
    sweep(file.parent)
    rows = rows_of(file, kind, tasks)
    done = len(rows) if len(rows) == len(tasks) else len(rows) // batch_size * batch_size
    rows = rows[:done]
    cut_rows(file, done)
    if done == len(tasks):
        return rows
    with Bar(file.parent.name, len(tasks), done) as bar, maker() as make:
        for start in range(done, len(tasks), batch_size):
            part = tasks[start : start + batch_size]
            made = make(part, start)
            append_jsonl(file, made)
            rows += made
            bar.advance(len(part))
    return rows


def rows_of(file: Path, kind: type[Row], tasks: Tasks) -> list[Row]:
    """The stored rows of the first tasks, as many as there are.

    Raises:
        CheckpointError: a row is damaged, or not the one of its task.
    """
    rows = read_records(file, kind)
    for n, row in enumerate(rows, 1):
        expected = tasks[n - 1].id if n <= len(tasks) else None
        if row.task_id != expected:
            stands = f"there are {len(tasks)} tasks" if expected is None else f"{expected!r} stands"
            raise bad_row(file, n, f"the row of task {row.task_id!r} where {stands}")
    return rows
