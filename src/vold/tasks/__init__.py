"""Task sources: one file per kind, one Protocol (`vold.types.TaskSource`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.demo.world import DigitTasks
from vold.errors import DataError, UngradableReference
from vold.graders import check_reference
from vold.smollm2.scenes import SceneTasks
from vold.tasks.gym import GymTasks
from vold.tasks.jsonl import JsonlTasks

if TYPE_CHECKING:
    from vold.config import DigitTasksSpec, GymTasksSpec, JsonlTasksSpec, SceneTasksSpec
    from vold.types import Task, TaskSource


def open_tasks(spec: DigitTasksSpec | JsonlTasksSpec | SceneTasksSpec | GymTasksSpec) -> list[Task]:
    """All tasks of a source, every reference checked against its own grader.

    Raises:
        ConfigError: a package that the source needs is missing.
        DataError: the source is empty, or a row cannot be used.
        UngradableReference: a reference that its grader marks as wrong.
    """
    source: TaskSource
    if spec.kind == "digits":
        source, name = DigitTasks(spec.split, spec.form, spec.size, spec.seed), f"digits/{spec.split}"
    elif spec.kind == "scenes":
        source, name = SceneTasks(spec.split, spec.form, spec.size, spec.seed), f"scenes/{spec.split}"
    elif spec.kind == "gym":
        source, name = GymTasks(spec.name, spec.size, spec.seed, spec.config), f"gym/{spec.name}"
    else:
        source, name = JsonlTasks(spec.path, grader=spec.grader, limit=spec.limit), str(spec.path)
    tasks = [source[i] for i in range(len(source))]
    if not tasks:
        raise DataError("there is not a single task here", where=name, fix="add rows, or check the path")
    for grader, reference in dict.fromkeys((t.grader, t.reference) for t in tasks):
        try:
            check_reference(grader, reference)
        except UngradableReference as error:
            task = next(t for t in tasks if (t.grader, t.reference) == (grader, reference))
            raise UngradableReference(
                error.what, where=f"{name}: task {task.id}", got=error.got or repr(reference), fix=error.fix
            ) from None
    return tasks
