"""Task sources: one file per kind, one Protocol (`vold.types.TaskSource`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from vold.data.gym import GymTasks
from vold.data.hf_datasets import prepare
from vold.data.hf_layouts import LAYOUTS
from vold.data.jsonl import JsonlTasks
from vold.data.mixture import Mixture
from vold.data.worlds.calls import CallTasks
from vold.data.worlds.digits import DigitTasks
from vold.data.worlds.scenes import SceneTasks
from vold.errors import DataError, UngradableReference
from vold.graders import check_reference

if TYPE_CHECKING:
    from vold.run.task_sections import SingleSpec, TasksSpec
    from vold.types import Task, TaskSource


class Tasks(Sequence["Task"]):
    """Tasks of a source, each made when it is asked for.

    `cards` says of every file and published set among them what it holds: source, revision, content hash, and of a
    published one the rows left out.
    """

    def __init__(self, source: TaskSource, cards: dict[str, dict[str, Any]]) -> None:
        self.source, self.cards = source, cards

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


def open_tasks(sets: Mapping[str, TasksSpec], name: str, *, references: bool = True) -> Tasks:
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
    if spec.kind == "mixture":
        parts = {label: open_tasks(sets, one, references=references) for label, one in spec.sources.items()}
        cards = {label: card for label, part in parts.items() for card in part.cards.values()}
        return Tasks(Mixture({n: p.source for n, p in parts.items()}, spec.weights, spec.size, spec.seed), cards)
    source, where, cards = _open(spec, references)
    if not len(source):
        raise DataError("there is not a single task here", where=where, fix="add rows, or check the path")
    tasks = Tasks(source, cards)
    if spec.kind not in LAYOUTS:
        _check(tasks, where)
    elif references and not tasks[0].reference:
        raise DataError(
            "this training set has no reference answers",
            where=where,
            fix="it can serve `traces.tasks`; take another for what is marked",
        )
    return tasks


def _open(spec: SingleSpec, references: bool) -> tuple[TaskSource, str, dict[str, dict[str, Any]]]:
    if spec.kind == "digits":
        return DigitTasks(spec.split, spec.form, spec.size, spec.seed), f"digits/{spec.split}", {}
    if spec.kind == "calls":
        return CallTasks(spec.split, spec.size, spec.seed), f"calls/{spec.split}", {}
    if spec.kind == "scenes":
        return SceneTasks(spec.split, spec.form, spec.size, spec.seed), f"scenes/{spec.split}", {}
    if spec.kind == "gym":
        return GymTasks(spec.name, spec.size, spec.seed, spec.config), f"gym/{spec.name}", {}
    if spec.kind == "jsonl":
        rows = JsonlTasks(spec.path, grader=spec.grader, limit=spec.limit, references=references)
        card = {"kind": "jsonl", "source": str(spec.path), "revision": None, "content_hash": rows.content_hash}
        return rows, str(spec.path), {"jsonl": card | {"rows_kept": len(rows)}}
    store = prepare(spec)
    return JsonlTasks(store.rows, grader="math", references=False), spec.kind, {spec.kind: store.card}


def _check(tasks: Tasks, where: str) -> None:
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        if not task.reference or (task.grader, task.reference) in seen:
            continue
        seen.add((task.grader, task.reference))
        try:
            check_reference(task.grader, task.reference)
        except UngradableReference as error:
            raise UngradableReference(
                error.what, where=f"{where}: task {task.id}", got=error.got or repr(task.reference), fix=error.fix
            ) from None
