"""The units of a study: one training run and its evaluation each, in a directory of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from vold.evals.evaluate import evaluate
from vold.evals.study_results import Measure, UnitResult
from vold.objective.custom import load_function
from vold.run.console import console
from vold.run.files import read_bytes, read_json, write_json, write_text
from vold.run.folders import new_directory, remove
from vold.run.lock import LOCK, owning
from vold.run.metrics import DistillRow
from vold.run.recipe import Recipe, load_recipe
from vold.run.records import from_json, to_json
from vold.run.shipped import resolve
from vold.run.view import Run
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces


@dataclass(frozen=True)
class Unit:
    """One training run and its evaluation."""

    arm: str
    rate: float | None
    seed: int
    part: Literal["select", "test"]

    @property
    def name(self) -> str:
        """Directory of the unit below the study's work directory."""
        return f"{self.arm}/{'as-is' if self.rate is None else f'rate-{self.rate:g}'}/{self.part}-seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a unit's result: the recipe's text, the keys set over it, the unit it starts from, the functions
    that measure it, and the directory of the study's own models with the hashes of their files."""

    recipe: str
    text: str
    arm: str
    stage: Literal["sft", "distill"] | None
    keys: Mapping[str, object]
    parent: Settings | None
    measures: Mapping[str, str] | None = None
    models: str | None = None
    made: Mapping[str, object] | None = None

    def stamp(self) -> str:
        """A digest."""
        return hashlib.sha256(json.dumps(to_json(self), sort_keys=True).encode()).hexdigest()

    def load(self, unit: Unit, over: Mapping[str, object] | None = None) -> Recipe:
        """The recipe with its keys set, those of `over` last."""
        items = [f"{k}={json.dumps(v)}" for k, v in {**self.keys, **(over or {})}.items()]
        for name, value in {"{seed}": str(unit.seed), "{models}": self.models or "{models}"}.items():
            items = [item.replace(name, value) for item in items]
        return load_recipe(self.recipe, items)


def build_models(models: Mapping[str, str], work: Path) -> None:
    """Make the study's own models that are not there yet."""
    for name, function in models.items():
        home = work / "models" / name
        if not home.is_dir():
            console.print(f"making the model {name}")
            torch.set_num_threads(1)
            with new_directory(home) as directory:
                load_function(function)(directory)


def is_done(work: Path, unit: Unit, settings: Settings) -> bool:
    """Whether this unit's result is there and was made with these settings; leftovers of others are removed."""
    home = work / unit.name
    if home.is_dir() and read_bytes(home / "stamp.txt") != settings.stamp().encode():
        with owning(home, "study"):  # a worker may have outlived the study that started it
            for old in (path for path in home.iterdir() if path.name != LOCK):
                remove(old)
    return (home / "unit.json").exists()


def result_of(work: Path, unit: Unit) -> UnitResult:
    """What a unit has stored.

    Raises:
        CheckpointError: nothing yet, or it is damaged.
    """
    home = work / unit.name
    return read_json(home / "unit.json", UnitResult, fix=f"delete {home} and repeat `vold study`: it is run again")


def run_unit(job: tuple[Unit, Settings, Path]) -> str:
    """Train and evaluate one unit in its own directory; its unit.json is written last. Returns its name."""
    unit, settings, work = job
    with owning(work / unit.name, "study"):
        return _run_unit(unit, settings, work / unit.name)


def _run_unit(unit: Unit, settings: Settings, home: Path) -> str:
    stage = settings.stage
    write_text(home / "stamp.txt", settings.stamp())
    began = time.monotonic()
    recipe = settings.load(unit)
    torch.set_num_threads(recipe.run.threads)
    model = _train(unit, settings, recipe)
    results = evaluate(settings.load(unit, {"eval.models": {unit.arm: str(model)}}))
    measures = {
        name: Measure(accuracy=s.accuracy, stderr=s.stderr, n=s.n, by_kind=s.by_kind)
        for name, s in results.stages[unit.arm].items()
    }
    if stage == "distill":
        measures["reward"] = _final_reward(Run(home).metrics("distill"))
    if stage is not None:
        for name, function in (settings.measures or {}).items():
            if (found := load_function(function)(home / stage)) is not None:
                measures[name] = from_json(Measure, found, where=function)
    seconds = round(time.monotonic() - began, 1)
    write_json(home / "unit.json", UnitResult(seed=unit.seed, rate=unit.rate, measures=measures, seconds=seconds))
    return unit.name


def _train(unit: Unit, settings: Settings, recipe: Recipe) -> Path | str:
    """The model that the unit's stage ends with, or that it is evaluated as it is."""
    model: Path | str = resolve(recipe.learner.path)
    parent = settings.parent
    if parent is not None:
        model = Path(str(parent.keys["run.dir"])) / str(parent.stage) / "final"
    if settings.stage == "sft":
        make_traces(recipe)
        return sft(recipe)
    if settings.stage == "distill":
        return distill(settings.load(unit, {"distill.init": str(model)}))
    return model


def _final_reward(rows: Sequence[DistillRow]) -> Measure:
    """Mean training reward over the last tenth of the steps."""
    last = rows[-max(1, len(rows) // 10) :]
    return Measure(accuracy=sum(r.reward for r in last) / len(last), n=len(last))
