"""A row a task, made batch by batch and stored as it is made: what `traces` and `balance` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vold.run.console import Bar
from vold.run.files import append_jsonl, keep_rows, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vold.data.sources import Tasks
    from vold.types import Task

Row = TypeVar("Row")


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
    """
    rows = read_records(file, kind)
    if len(rows) == len(tasks):
        return rows
    done = len(rows) // batch_size * batch_size if len(rows) < len(tasks) else len(tasks)
    rows = rows[:done]
    keep_rows(file, rows)
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
