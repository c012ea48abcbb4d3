"""Studies: arms x seeds under a protocol, with a verdict on every claim.

A study file names arms, learning rates to sweep, seeds and claims. Every arm is swept over equally many rates, judged
on the selection tasks; the chosen rate is trained afresh with the study's seeds and judged on the test tasks. Work is
cut into units (arm, rate, seed) whose results are files, so a stopped study goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import Field, ValidationError, model_validator

from vold.errors import ConfigError
from vold.evals.evaluate import evaluate
from vold.evals.study.claims import COLUMNS, Claim, judge, write_tables
from vold.model.loading import resolve
from vold.objective.custom import load_function
from vold.run.console import Bar, console
from vold.run.files import MANIFEST, new_directory, read_jsonl, write_json, write_text
from vold.run.overrides import readable
from vold.run.recipe import AnyTaskSpec, Recipe, Section, load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

WORK = Path("runs/studies")
"""Where units leave their runs; results go beside the study file."""


class Arm(Section):
    """One way to train."""

    stage: Literal["sft", "distill"] | None = None
    """The stage this arm runs; none for a model that is evaluated as it is."""
    after: str | None = None
    """The arm whose result of the same seed this arm starts from; the recipe's student if absent."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe keys of this arm."""
    rates: tuple[float, ...] = ()
    """Learning rates to choose from on the selection tasks."""


class Study(Section):
    """A study file."""

    recipe: Path
    """The recipe all arms share, relative to the study file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe keys that hold for every arm; `{seed}` in a value becomes the seed."""
    workers: int = Field(2, ge=1)
    """Units that run side by side, one CPU thread each."""
    seeds: tuple[int, ...] = Field(min_length=2)
    """Training seeds of the test."""
    select_seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds of the sweep; none of them is a test seed."""
    select_on: str
    """Task set whose accuracy chooses the rate."""
    select_tasks: dict[str, AnyTaskSpec]
    """Selection tasks."""
    test_tasks: dict[str, AnyTaskSpec]
    """Test tasks."""
    models: dict[str, str] = Field(default_factory=dict)
    """Models made for this study: by name the `my_module:function` that saves one in the directory it is given. In a
    value of `set`, `{models}` becomes the directory that holds them."""
    measures: dict[str, str] = Field(default_factory=dict)
    """Figures read off the directory of a trained arm's stage: by name a `my_module:function` that returns a dictionary
    with `accuracy` for a share or `value` for any other number, and optionally `counts`, or None where it has none."""
    columns: dict[str, str] = Field(default_factory=lambda: dict(COLUMNS))
    """Measures shown in the table, with their headings."""
    arms: dict[str, Arm]
    """Arms by name, parents before children."""
    claims: dict[str, Claim]
    """Claims by id."""

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if set(self.seeds) & set(self.select_seeds):
            raise ValueError("select_seeds and seeds overlap: choices would be made on the test")
        if self.select_on not in self.select_tasks:
            raise ValueError(f"select_on names no selection task set: {self.select_on!r}")
        seen: list[str] = []
        for name, arm in self.arms.items():
            if arm.after is not None and arm.after not in seen:
                raise ValueError(f"arm {name!r} comes after {arm.after!r}, which is not an arm above it")
            if (arm.stage is None) != (not arm.rates):
                raise ValueError(f"arm {name!r}: a stage and its learning rates go together")
            seen.append(name)
        swept = {len(a.rates) for a in self.arms.values() if a.stage}
        if len(swept) > 1:
            raise ValueError("every arm is swept over equally many rates")
        for key, claim in self.claims.items():
            for arm_name in (claim.better, claim.worse):
                if arm_name is not None and arm_name not in seen:
                    raise ValueError(f"claim {key!r} names no arm: {arm_name!r}")
        if taken := {*self.measures} & {*self.test_tasks, "reward"}:
            raise ValueError(f"a measure and a task set share the name {min(taken)!r}")
        return self


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


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: no such file, or a key that is unknown, mistyped or inconsistent.
    """
    try:
        return Study.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError("cannot read this study", where=str(path), got=str(error.strerror)) from error
    except yaml.YAMLError as error:
        raise ConfigError("this study is not valid YAML", where=str(path), got=str(error).replace("\n", " ")) from None
    except ValidationError as error:
        raise readable(error, str(path), Study) from None


def run_study(target: str, overrides: list[str]) -> dict[str, Any]:
    """Run what is missing of a study, judge its claims, write results.json and the tables made from it.

    Raises:
        ConfigError: overrides were given (a study runs as its file says), or the file is wrong.
    """
    if overrides:
        raise ConfigError(
            "a study takes no overrides", got=" ".join(overrides), fix="edit the study file and commit it"
        )
    path = Path(target).resolve()
    study = load_study(path)
    _refuse_training_sets(path, study)
    work = WORK.resolve() / path.parent.name
    work.mkdir(parents=True, exist_ok=True)
    began, clock = time.monotonic(), work / "clock.json"
    spent = json.loads(clock.read_text())["seconds"] if clock.exists() else 0.0
    chosen: dict[str, float | None] = {}
    sweeps: dict[str, dict[str, list[float]]] = {}
    _build_models(study, work)
    context = multiprocessing.get_context("spawn")
    with context.Pool(study.workers, initializer=_quiet) as pool:

        def run(units: list[Unit], label: str) -> None:
            missing = [u for u in units if not _is_done(work, u, _settings(path, study, u, chosen, work))]
            jobs = [(_settings(path, study, u, chosen, work), u, str(work)) for u in missing]
            with Bar(label, len(units), len(units) - len(missing)) as bar:
                for name in pool.imap_unordered(_run_unit, jobs):
                    write_json(clock, {"seconds": spent + time.monotonic() - began})
                    bar.advance(note=name)

        for generation in _generations(study):
            swept = [a for a in generation if study.arms[a].stage]
            for arm in set(generation) - set(swept):
                chosen[arm] = None
            run(
                [Unit(a, r, s, "select") for a in swept for r in study.arms[a].rates for s in study.select_seeds],
                f"sweep {', '.join(swept) or 'nothing'}",
            )
            for arm in swept:
                sweeps[arm] = {
                    f"{rate:g}": [_accuracy(work, Unit(arm, rate, s, "select"), study) for s in study.select_seeds]
                    for rate in study.arms[arm].rates
                }
                chosen[arm] = max(study.arms[arm].rates, key=lambda r: sum(sweeps[arm][f"{r:g}"]))
            run(
                [Unit(a, chosen[a], s, "test") for a in generation for s in _seeds(study, a)],
                f"train {', '.join(generation)}",
            )
    arms = {
        name: {
            "rate": chosen[name],
            "sweep": sweeps.get(name, {}),
            "seeds": [
                json.loads((work / Unit(name, chosen[name], s, "test").name / "unit.json").read_text())
                for s in _seeds(study, name)
            ],
        }
        for name in study.arms
    }
    results: dict[str, Any] = {
        "arms": arms,
        "claims": {key: judge(claim, arms, list(study.seeds)) for key, claim in study.claims.items()},
        **({"columns": study.columns} if study.columns != COLUMNS else {}),
        "commit": _commit(path.parent),
        "wall_seconds": round(spent + time.monotonic() - began, 1),
    }
    write_json(path.parent / "results.json", results)
    for written in write_tables(path.parent, results):
        console.print(f"wrote {written}")
    console.print(f"wrote {path.parent / 'results.json'}")
    for key, claim in results["claims"].items():
        console.print(f"  {claim['verdict']:>14}  {key}: {claim['claim']}")
    return results


def _refuse_training_sets(path: Path, study: Study) -> None:
    """Selection and test sets stand in for sets of the recipe with their names: none that a stage trains on."""
    recipe = load_recipe(path.parent / study.recipe)
    trained = {s.tasks for s in (recipe.traces, recipe.align, recipe.balance, recipe.distill) if s is not None}
    trained |= {part for name in trained for part in recipe.tasks[name].parts.values()}
    if taken := trained & {*study.select_tasks, *study.test_tasks}:
        raise ConfigError(
            "a stage of the recipe uses a task set of this name",
            where=f"{path}: select_tasks, test_tasks",
            got=min(taken),
            fix="call the study's own set otherwise",
        )


def _generations(study: Study) -> list[list[str]]:
    """Arms by how many arms stand before them."""
    depth: dict[str, int] = {}
    for name, arm in study.arms.items():
        depth[name] = 0 if arm.after is None or study.arms[arm.after].stage is None else depth[arm.after] + 1
    return [[n for n in depth if depth[n] == d] for d in sorted(set(depth.values()))]


def _seeds(study: Study, arm: str) -> tuple[int, ...]:
    return study.seeds if study.arms[arm].stage else study.seeds[:1]


def _accuracy(work: Path, unit: Unit, study: Study) -> float:
    figures = json.loads((work / unit.name / "unit.json").read_text())
    return float(figures[study.select_on]["accuracy"])


def _quiet() -> None:
    console.quiet = True
    os.environ["OMP_NUM_THREADS"] = "1"


def _settings(path: Path, study: Study, unit: Unit, chosen: dict[str, float | None], work: Path) -> dict[str, Any]:
    """All that decides a unit's result: the recipe's text, the keys set over it, and where it starts from."""
    arm = study.arms[unit.arm]
    tasks = study.select_tasks if unit.part == "select" else study.test_tasks
    keys = {**study.set, **arm.set, "run.dir": str(work / unit.name), "run.seed": unit.seed}
    keys |= {f"tasks.{name}": spec.model_dump(mode="json") for name, spec in tasks.items()}
    keys["eval.tasks"] = list(tasks)
    if arm.stage:
        keys[f"{arm.stage}.optimizer.lr"] = unit.rate
    parent = None
    if arm.after is not None and study.arms[arm.after].stage is not None:
        above = Unit(arm.after, chosen[arm.after], unit.seed, unit.part)
        parent = _settings(path, study, above, chosen, work)
    recipe = path.parent / study.recipe
    text = recipe.read_text()
    more: dict[str, Any] = {"measures": study.measures} if study.measures else {}
    if study.models:
        made = {name: json.loads((work / "models" / name / MANIFEST).read_text()) for name in study.models}
        more |= {"models": str(work / "models"), "made": made}
    where = {"recipe": str(recipe), "text": text, "arm": unit.arm, "stage": arm.stage}
    return {**where, "keys": keys, "parent": parent, **more}


def _build_models(study: Study, work: Path) -> None:
    """Make the study's own models that are not there yet."""
    for name, function in study.models.items():
        home = work / "models" / name
        if not home.is_dir():
            console.print(f"making the model {name}")
            torch.set_num_threads(1)
            with new_directory(home) as directory:
                load_function(function)(directory)


def _stamp(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _is_done(work: Path, unit: Unit, settings: dict[str, Any]) -> bool:
    """Whether this unit's result is there and was made with these settings; leftovers of others are removed."""
    home = work / unit.name
    stamp = home / "stamp.txt"
    if home.is_dir() and (not stamp.exists() or stamp.read_text() != _stamp(settings)):
        shutil.rmtree(home)
    return (home / "unit.json").exists()


def _run_unit(job: tuple[dict[str, Any], Unit, str]) -> str:
    """Train and evaluate one unit in its own directory; its unit.json is written last."""
    settings, unit, work = job[0], job[1], Path(job[2])
    home, stage, parent = work / unit.name, settings["stage"], settings["parent"]
    write_text(home / "stamp.txt", _stamp(settings))
    began = time.monotonic()

    def recipe(**more: Any) -> Recipe:
        keys = {**settings["keys"], **{k.replace("__", "."): v for k, v in more.items()}}
        places = {"{seed}": str(unit.seed), "{models}": settings.get("models", "{models}")}
        items = [f"{k}={json.dumps(v)}" for k, v in keys.items()]
        for name, value in places.items():
            items = [item.replace(name, value) for item in items]
        return load_recipe(settings["recipe"], items)

    first = recipe()
    torch.set_num_threads(first.run.threads)
    model: Path | str = resolve(first.student.path)
    if parent is not None:
        model = Path(parent["keys"]["run.dir"]) / parent["stage"] / "final"
    if stage == "sft":
        make_traces(first)
        model = sft(first)
    elif stage == "distill":
        model = distill(recipe(distill__init=str(model)))
    results = evaluate(recipe(eval__models={unit.arm: str(model)}))
    figures: dict[str, Any] = {"seed": unit.seed, "rate": unit.rate}
    for name, s in results.stages[unit.arm].items():
        figures[name] = {"accuracy": s.accuracy, "stderr": s.stderr, "n": s.n, "by_kind": dict(s.by_kind)}
    if stage == "distill":
        rewards = [r["reward"] for r in read_jsonl(home / "distill" / "metrics.jsonl")]
        last = rewards[-max(1, len(rewards) // 10) :]
        figures["reward"] = {"accuracy": sum(last) / len(last), "n": len(last)}
    if stage is not None:
        found = {name: load_function(function)(home / stage) for name, function in settings.get("measures", {}).items()}
        figures |= {name: measured for name, measured in found.items() if measured is not None}
    figures["seconds"] = round(time.monotonic() - began, 1)
    write_json(home / "unit.json", figures)
    return unit.name


def _commit(directory: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
