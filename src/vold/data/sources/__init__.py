"""Task sources: a module each, and nothing else. `kind: NAME` in a recipe is the module NAME of this folder: its `Spec`
holds the recipe's keys and opens the tasks. `open_tasks` checks what every source has to keep to.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

from vold.errors import DataError, UngradableReference
from vold.graders import check_reference
from vold.run.task_sections import TaskSpec

if TYPE_CHECKING:
    from vold.run.summaries import DataCard
    from vold.types import Task, TaskSource


MOST = 1_000_000
"""Problems that a recipe can ask a generator for; every one of them is made and graded before a run starts."""


class Tasks(Sequence["Task"]):
    """Tasks of a source, each made when it is asked for.

    Args:
        source: gives a task by its place.
        name: what messages call it, such as a file's path.
        cards: what is known of every file and published set among them.
        graded: every reference is known to be one that its grader accepts.
    """

    def __init__(
        self, source: TaskSource, name: str, cards: Mapping[str, DataCard] | None = None, *, graded: bool = False
    ) -> None:
        self.source, self.name, self.cards, self.graded = source, name, cards or {}, graded

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self.source[i] for i in range(len(self))[index]]
        return self.source[range(len(self))[index]]


class Source(TaskSpec):
    """Base of every module's `Spec`: its fields are the keys of a set in a recipe."""

    @abstractmethod
    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The tasks, not yet checked.

        Args:
            parts: the opened sets that this one is made of, by its own labels.
            references: whether every task must have a reference answer.

        Raises:
            ConfigError: a package that the source needs is missing.
            DataError: a row cannot be used.
        """


def open_tasks(sets: Mapping[str, TaskSpec], name: str, *, references: bool = True) -> Tasks:
    """The tasks of a set, every reference checked against its own grader.

    Args:
        sets: the recipe's task sets.
        name: the one to open.
        references: whether every task must have a reference answer.

    Raises:
        ConfigError: a package that the source needs is missing.
        DataError: the source is empty, a row cannot be used, or there are no references.
        UngradableReference: a reference that its grader marks as wrong.
    """
    spec = sets[name]
    assert isinstance(spec, Source)  # what a recipe's `kind` finds
    parts = {label: open_tasks(sets, part, references=references) for label, part in spec.parts.items()}
    tasks = spec.open(parts, references=references)
    if not len(tasks):
        raise DataError("there is not a single task here", where=tasks.name, fix="add rows, or check the path")
    if not tasks.graded:
        _check(tasks)
    elif references and not tasks[0].reference:
        raise DataError(
            "this training set has no reference answers",
            where=tasks.name,
            fix="it can serve `traces.tasks`; take another for what is marked",
        )
    return tasks


def _check(tasks: Tasks) -> None:
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        if not task.reference or (task.grader, task.reference) in seen:
            continue
        seen.add((task.grader, task.reference))
        try:
            check_reference(task.grader, task.reference)
        except UngradableReference as error:
            raise UngradableReference(
                error.what, where=f"{tasks.name}: task {task.id}", got=error.got or repr(task.reference), fix=error.fix
            ) from None
