"""Reading what a run wrote, without ever failing on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from vold.report.text import Json, part, tidy
from vold.run.files import read_jsonl

if TYPE_CHECKING:
    from pathlib import Path


def rows(file: Path) -> list[Json]:
    """The whole rows of a JSON-lines file; none if it is absent or no text."""
    try:
        return [r for r in read_jsonl(file) if isinstance(r, dict)]
    except (OSError, UnicodeDecodeError):
        return []


def one(file: Path) -> Json:
    """The object in a JSON file, its texts cleaned; an empty one if it is absent, cut short or something else."""
    try:
        return part(tidy(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        return {}


def recipe_of(run_dir: Path) -> Json:
    """The stored recipe as it was written, unvalidated: a run of an older version can be shown too."""
    try:
        return part(tidy(yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def answers_of(run_dir: Path) -> dict[str, dict[str, list[Json]]]:
    """Stored answers by model and set; base, sft and vold come first."""
    first = ("base", "sft", "vold")
    folders = [f for f in sorted((run_dir / "eval").glob("*")) if f.is_dir() and not f.name.startswith(".")]
    folders.sort(key=lambda f: first.index(f.name) if f.name in first else len(first))
    return {f.name: {file.stem: rows(file) for file in sorted(f.glob("*.jsonl"))} for f in folders}
