"""What decides the result of a stage, as flat keys and values, and which of them may be others when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vold.run.task_sections import STAGES_WITH_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vold.run.recipe import Recipe

    Settings = dict[str, object]
    """Values by dotted key."""

PLACES = frozenset({"server", "cache", "engine", "mismatch", "quantize_error", "launch", "devices", "compile"})
"""Recipe keys that say where and by what code something runs and how it is watched, not what it is: they may change
between restarts."""
HARMLESS = ("checkpoint_every", "models", "self_check", "all_correct", "all_incorrect", "some_correct", "max_copies")
"""Keys of a stage that may change as well; numbers of copies as the labels of `vold balance` stay."""
AS_BEFORE = {"ahead": 0}
"""Keys of a stage that settings of an earlier version lack, with the value that means what it did."""
TEACHER_USERS = ("traces", "sft", "align", "distill")
FILTERS = ("traces.keep", "traces.max_tokens")
"""Applied when traces are read, not when they are made."""
TRAINED = ("sft", "distill")
"""Stages that end with a model, and that more steps can be added to."""


def settings_of(recipe: Recipe, stage: str) -> Settings:
    """All that decides what a stage makes. Task sets count by what they hold, not by their names."""
    raw = _resolved(recipe)
    parts = {"run": {"seed": raw["run"]["seed"], "threads": raw["run"]["threads"]}, "student": raw["student"]}
    if stage in TEACHER_USERS:
        parts["teacher"] = raw["teacher"]
    if stage == "sft":
        parts["traces"] = raw["traces"]
    if raw["environment"] is not None and stage != "align":
        parts["environment"] = raw["environment"]
    parts[stage] = {k: v for k, v in raw[stage].items() if k not in HARMLESS and (k, v) not in AS_BEFORE.items()}
    return {k: v for k, v in _flat(parts) if not _is_place(k)}


def changed(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Keys that differ. An evaluation may gain or lose whole task sets and benchmarks."""
    both = _sets(old) & _sets(new)
    return sorted(k for k in {*old, *new} if old.get(k) != new.get(k) and (_set_of(k) is None or _set_of(k) in both))


def parents(recipe: Recipe, stage: str) -> list[str]:
    """Stages of the same run whose results this one reads."""
    section = getattr(recipe, stage)
    if stage == "sft":
        return ["traces"]
    if stage == "balance" or (stage == "distill" and section.objective.mix is None):
        return ["sft"] if section.init is None else []
    return ["traces", *(["sft"] if section.init is None else [])] if stage == "distill" else []


def seen_from(parent: str, recipe: Recipe, settings: Settings) -> Settings:
    """What has to be the same in a stage and in a parent whose results it reads: nothing that only says how the parent
    was trained, or with which seed, for these results are there.

    Args:
        parent: `traces` or `sft`.
        recipe: of the stage that reads.
        settings: the parent's, of any recipe.
    """
    keys: tuple[str, ...] = ("student.path", "student.teacher_tokens")
    if parent == "traces":
        keys += ("traces.", "environment.")
        keys += ("teacher.",) if recipe.traces is not None and recipe.traces.answers == "teacher" else ()
    return {k: v for k, v in settings.items() if f"{k}.".startswith(keys) and k not in FILTERS}


def _is_place(key: str) -> bool:
    parts = key.split(".")
    return _set_of(key) is None and parts[1:2] != ["tasks"] and not PLACES.isdisjoint(parts)


def _set_of(key: str) -> tuple[str, ...] | None:
    """The task set or benchmark of `vold eval` that a flat key belongs to."""
    parts = tuple(key.split("."))
    return parts[:3] if parts[:2] in (("eval", "tasks"), ("eval", "benchmarks")) else None


def _sets(flat: Iterable[str]) -> set[tuple[str, ...]]:
    return {found for key in flat if (found := _set_of(key)) is not None}


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with every task set where its name stands."""
    raw = recipe.model_dump(mode="json")
    sets = raw["tasks"]
    for name, spec in recipe.tasks.items():
        if spec.parts:
            sets[name] |= {"sources": {label: sets[one] for label, one in spec.parts.items()}}
    for stage in STAGES_WITH_TASKS:
        section = raw[stage] or {"tasks": ()}
        named = section["tasks"]
        section["tasks"] = sets[named] if isinstance(named, str) else {name: sets[name] for name in named}
    benchmarks = (raw["eval"] or {}).get("benchmarks", {})
    for stage in TRAINED:
        if watched := (raw[stage] or {}).get("eval"):
            watched["asked"] = {name: sets.get(name) or benchmarks[name] for name in watched["sets"]}
    return raw


def _flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values of nested dictionaries."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value
