"""A tiny run of every stage that nothing has disturbed, kept as it was before and after each of them."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import tiny
from faults.frame import Outcome, vold_in
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from

STAGES = ("traces", "sft", "balance", "distill", "eval")
"""In the order in which they run."""

CLOCK = ("seconds", "per_second", "time", "started")
"""Words in the names of fields that depend on the clock."""


@dataclass(frozen=True)
class Runs:
    """Where the runs are.

    Attributes:
        home: a directory of this process.
        recipe: the recipe's file. Its `run.dir` is `run`, so that it serves any working directory.
    """

    home: Path
    recipe: str

    def before(self, stage: str, to: Path) -> None:
        """Copy the run as it is before a stage into the directory `to`."""
        copy(self.home / "before" / stage, to)

    def after(self, stage: str) -> Path:
        """The directory that holds the run after a stage."""
        return self.home / "after" / stage

    def going_on(self, stage: str, home: Path, outcome: Outcome) -> Outcome:
        """Start a stage again where it was disturbed: `outcome` if it ends well and leaves what it should."""
        ended = vold_in([stage, self.recipe], home)
        if ended.code != 0:
            return Outcome("lost", f"it does not go on: {ended.said.strip()[-300:]}")
        other = differences(home, self.after(stage))
        return Outcome("lost", f"it goes on to other content: {', '.join(other)[:300]}") if other else outcome


@cache
def runs() -> Runs:
    """Made once by the process that asks first, and removed with it."""
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)  # forked children leave without
    raw = tiny.recipe_dict(home)
    raw["run"]["dir"] = "run"
    raw["balance"] = {"tasks": "train", "rollouts": 2, "sampling": raw["align"]["sampling"], "batch_size": 4}
    recipe = home / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    made = Runs(home, str(recipe))
    work = home / "work"
    work.mkdir()
    for stage in STAGES:
        if stage == "sft":  # an untrained teacher rarely ends an answer: the cold start gets whole ones
            shutil.rmtree(work / "run" / "traces")
            tiny.write_traces(work, recipe_from(raw, where=str(recipe)))
        copy(work, home / "before" / stage)
        ended = vold_in([stage, made.recipe], work)
        assert ended.code == 0, f"{stage}: {ended.said}"
        copy(work, home / "after" / stage)
    return made


def copy(source: Path, to: Path) -> None:
    """Copy a tree as it is."""
    shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True)


def differences(one: Path, other: Path) -> list[str]:
    """Files below `run` of two directories that differ in more than times and pages."""
    left, right = _content(one / "run"), _content(other / "run")
    return sorted(name for name in {*left, *right} if left.get(name) != right.get(name))


def _content(run: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for file in sorted(f for f in run.rglob("*") if f.is_file() and f.suffix != ".html" and ".lock" not in f.parts):
        name = file.relative_to(run).as_posix()
        if file.suffix == ".jsonl":
            found[name] = [_without_clock(row) for row in read_jsonl(file, whole=True)]
        elif file.suffix == ".json" and file.name != "manifest.json":
            found[name] = _without_clock(json.loads(file.read_text()))
        elif file.name != "manifest.json" and file.suffix != ".sums":  # hashes of what is compared itself
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_clock(v) for k, v in value.items() if not any(word in k for word in CLOCK)}
    return [_without_clock(v) for v in value] if isinstance(value, list) else value
