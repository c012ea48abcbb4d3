"""Directories of a run and its stages, and the settings that a stage goes on with."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold import __version__
from vold.errors import ConfigError
from vold.run.files import read_bytes, read_json, write_json, write_text
from vold.run.recipe import dump_recipe
from vold.run.summaries import DataCard
from vold.run.task_sections import STAGES_WITH_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vold.run.recipe import Recipe

PLACES = frozenset({"server", "cache", "engine", "mismatch"})
"""Recipe keys that say where something runs and how it is watched, not what it is: they may change between restarts."""


def open_stage(recipe: Recipe, stage: str) -> Path:
    """The directory of one stage of a run, with the recipe and versions beside it.

    Started again with other settings of the same stage, a run is refused: its two halves would not belong together.
    Task sets count by what they hold, not by their names; an evaluation may gain or lose whole task sets and
    benchmarks.

    Raises:
        ConfigError: the directory holds this stage of a different recipe.
    """
    directory = recipe.run.dir / stage
    directory.mkdir(parents=True, exist_ok=True)
    mine = json.dumps(_fingerprint(recipe, stage), indent=2, sort_keys=True) + "\n"
    stamp = directory / "settings.json"
    if read_bytes(stamp) not in (None, mine.encode()):
        old, new = read_json(stamp, dict, fix=f"delete {directory} to start it afresh"), json.loads(mine)
        both = _sets(old) & _sets(new)
        changed = sorted(
            k for k in {*old, *new} if old.get(k) != new.get(k) and (_set_of(k) is None or _set_of(k) in both)
        )
        if changed:
            raise ConfigError(
                f"this run directory already holds `{stage}` with other settings",
                where=str(directory),
                got=", ".join(f"{k}: {old.get(k)} before, {new.get(k)} now" for k in changed[:3]),
                fix="use another run.dir, or delete that directory to start it afresh",
            )
    write_text(stamp, mine)
    write_text(recipe.run.dir / "recipe.yaml", dump_recipe(recipe))
    write_json(recipe.run.dir / "versions.json", versions())
    return directory


def record_data(directory: Path, key: str, cards: Mapping[str, DataCard]) -> None:
    """Write down which data a stage reads, in `data.json`: source, revision, content hash, rows left out.

    Args:
        directory: the stage's.
        key: where in the recipe the data is named.
        cards: what `vold.data.sources.Tasks` says of each file and published set.

    Raises:
        ConfigError: the stage began with other data.
    """
    if not cards:
        return
    file = directory / "data.json"
    known = read_json(file, dict[str, dict[str, DataCard]]) if file.exists() else {}
    for name, card in cards.items():
        before = known.get(key, {}).get(name)
        if before is not None and before.content_hash != card.content_hash:
            known_by = f"revision {before.revision} before, {card.revision} now, with " if card.revision else ""
            raise ConfigError(
                "the data of this stage has changed since it began",
                where=f"{key}: {name}",
                got=f"{known_by}other rows",
                fix="give the old revision or files, or delete the stage's directory to start it afresh",
            )
    write_json(file, {**known, key: cards})


def _set_of(key: str) -> tuple[str, ...] | None:
    """The task set or benchmark of `vold eval` that a flat key belongs to."""
    parts = tuple(key.split("."))
    return parts[:3] if parts[:2] in (("eval", "tasks"), ("eval", "benchmarks")) else None


def _sets(flat: Iterable[str]) -> set[tuple[str, ...]]:
    return {found for key in flat if (found := _set_of(key)) is not None}


def _fingerprint(recipe: Recipe, stage: str) -> dict[str, object]:
    """Flat keys and values of all that decides what a stage makes."""
    raw = _resolved(recipe)
    parts = {"run": {"seed": raw["run"]["seed"], "threads": raw["run"]["threads"]}, "student": raw["student"]}
    if stage in ("traces", "sft", "align", "distill"):
        parts["teacher"] = raw["teacher"]
    if stage == "sft":
        parts["traces"] = raw["traces"]
    if raw["environment"] is not None and stage != "align":
        parts["environment"] = raw["environment"]
    parts[stage] = dict(raw[stage])
    copies = ("all_correct", "all_incorrect", "some_correct", "max_copies")  # the labels of `vold balance` stay
    for harmless in ("checkpoint_every", "models", "self_check", *copies):
        parts[stage].pop(harmless, None)
    return {k: v for k, v in _flat(parts) if not PLACES.intersection(k.split("."))}


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
    return raw


def _flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values of nested dictionaries."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    import torch
    import transformers

    return {
        "vold": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
