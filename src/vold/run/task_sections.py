"""Task sets of a recipe: named once, referred to by stages, and read by the task source that `kind` names.

A source is a module of `vold.data.sources`; its `Spec` has the keys of a set. It is found by its name when a recipe
asks for it: no table lists the sources, and none is loaded that no recipe uses. A source that stands elsewhere is named
with its module, as masks and weights are: `my_module:MySpec`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from vold.errors import ConfigError
from vold.run.section import Section
from vold.types.named import is_named, load

SOURCES = "vold.data.sources"
STAGES_WITH_TASKS = ("traces", "align", "balance", "distill", "eval")
"""Sections whose `tasks` names task sets; `eval` names several."""


class TaskSpec(Section):
    """A set of problems. Its other keys are those of its source."""

    kind: str
    """The task source."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Names of the task sets that this one is made of, by label: its key `sources`, if it has one."""
        return {}


class InvalidTaskSet(ValueError):
    """A set that its source does not accept: pydantic's error, and the section that it is about."""

    def __init__(self, error: ValidationError, section: type[TaskSpec]) -> None:
        super().__init__(str(error))
        self.error, self.section = error, section


@functools.cache
def task_kinds() -> tuple[str, ...]:
    """Names of all task sources."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(SOURCES).__path__)))


def task_source(kind: object) -> type[TaskSpec]:
    """The keys of a task source.

    Raises:
        ConfigError: there is none of this name.
    """
    if isinstance(kind, str) and is_named(kind):
        found = load(kind)
        if not (isinstance(found, type) and issubclass(found, TaskSpec)):
            raise ConfigError(
                "this is no task source",
                where="kind",
                got=f"{kind}, which is {found!r}",
                fix="name a subclass of vold.data.sources.Source",
            )
        return found
    if kind not in task_kinds():
        close = difflib.get_close_matches(str(kind), task_kinds(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            "unknown kind of task set",
            where="kind",
            got=repr(kind),
            fix=f"{hint}choose one of {', '.join(task_kinds())}",
        )
    spec: type[TaskSpec] = importlib.import_module(f"{SOURCES}.{kind}").Spec
    return spec


def _read_by_its_source(raw: object) -> TaskSpec:
    if isinstance(raw, TaskSpec):
        return raw
    if not isinstance(raw, Mapping):
        raise ConfigError("a task set is a mapping", got=repr(raw), fix="write {kind: ..., ...}")
    section = task_source(raw.get("kind"))
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        raise InvalidTaskSet(error, section) from None


AnyTaskSpec = Annotated[SerializeAsAny[TaskSpec], BeforeValidator(_read_by_its_source)]
"""A task set of any source."""


def find_task_set(sets: Mapping[str, TaskSpec], name: str, where: str) -> TaskSpec:
    """The set of this name.

    Raises:
        ConfigError: the recipe has no such set.
    """
    if name in sets:
        return sets[name]
    close = difflib.get_close_matches(name, sets, n=1, cutoff=0.5)
    known = f"task sets of this recipe: {', '.join(sets)}" if sets else f"name it: tasks.{name}={{kind: ..., ...}}"
    raise ConfigError(
        "no task set has this name", where=where, got=name, fix=f"did you mean {close[0]!r}?" if close else known
    )


def unknown_task_sets(raw: Mapping[str, Any]) -> list[ConfigError]:
    """What `find_task_set` raises for the names in a recipe as it is written, whatever else is wrong with it."""
    sets: Any = raw.get("tasks")
    found: list[ConfigError] = []
    for stage in STAGES_WITH_TASKS if isinstance(sets, Mapping) else ():
        section = raw.get(stage)
        named = section.get("tasks") if isinstance(section, Mapping) else None
        for name in named if isinstance(named, list) else [named]:
            try:
                if isinstance(name, str):
                    find_task_set(sets, name, f"{stage}.tasks")
            except ConfigError as error:
                found.append(error)
    return found


def refuse_inline_tasks(raw: Mapping[str, Any]) -> None:
    """Refuse a recipe whose stages spell out their task sets.

    Raises:
        ConfigError: one does; the message says how to write it.
    """
    for stage in STAGES_WITH_TASKS:
        section = raw.get(stage)
        found = section.get("tasks") if isinstance(section, Mapping) else None
        if isinstance(found, Mapping):
            sets = dict(found) if stage == "eval" else {stage: found}
            named = f"[{', '.join(map(str, sets))}]" if stage == "eval" else stage
            written = [f"tasks.{name}={_short(one)}" for name, one in sets.items()]
            raise ConfigError(
                "task sets are named once, in the recipe's `tasks`, and stages refer to them",
                where=f"{stage}.tasks",
                got=_short(found),
                fix=" ".join([*written, f"{stage}.tasks={named}"]),
            )


def _short(value: object) -> str:
    """A mapping by one of its keys.

    Example:
        >>> _short({"kind": "digits", "size": 3})
        '{kind: digits, ...}'
    """
    if not isinstance(value, Mapping) or not value:
        return repr(value)
    key = "kind" if "kind" in value else next(iter(value))
    first = f"{key}: {'{...}' if isinstance(value[key], Mapping) else value[key]}"
    return f"{{{first}{', ...' if len(value) > 1 else ''}}}"
