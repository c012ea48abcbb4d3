"""Studies: arms x seeds under a protocol, with a verdict on every claim.

A study file names arms, learning rates to sweep, seeds and claims. Every arm is swept over equally many rates, judged
on the selection tasks; the chosen rate is trained afresh with the study's seeds and judged on the test tasks. Work is
cut into units (arm, rate, seed) whose results are files, so a stopped study goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from vold.demo.units import Settings, Unit, build_models, is_done, result_of, run_unit
from vold.errors import ConfigError
from vold.evals.claims import Claim, decide_all, write_tables
from vold.evals.disk import probe
from vold.evals.study_results import COLUMNS, ArmResult, Clock, StudyResults
from vold.run.console import Bar, console, print_next
from vold.run.files import read_json, write_json
from vold.run.folders import MANIFEST
from vold.run.lock import owning
from vold.run.mistakes import Written, readable
from vold.run.names import Name, close_to, no_twins
from vold.run.recipe import AnyTaskSpec, Section, load_recipe
from vold.run.yaml_text import sections_in, text_of

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

WORK = Path("runs/studies")
"""Where units leave their runs; results go beside the study file."""

TAKEN = ("models", "clock.json")
"""What a study keeps beside the folders of its arms."""


CONTROL = "-opsa"
"""What is put behind the name of an arm for that of its control."""
OBJECTIVE = "distill.objective"


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
    workers: int = Field(2, ge=1, le=1024)
    """Units that run side by side, one CPU thread each."""
    seeds: tuple[int, ...] = Field(min_length=2)
    """Training seeds of the test."""
    select_seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds of the sweep; none of them is a test seed."""
    select_on: str
    """Task set whose accuracy chooses the rate."""
    select_tasks: dict[Name, AnyTaskSpec]
    """Selection tasks."""
    test_tasks: dict[Name, AnyTaskSpec]
    """Test tasks."""
    models: Annotated[dict[Name, str], AfterValidator(no_twins)] = Field(default_factory=dict)
    """Models made for this study: by name the `my_module:function` that saves one in the directory it is given. In a
    value of `set`, `{models}` becomes the directory that holds them."""
    measures: dict[str, str] = Field(default_factory=dict)
    """Figures read off the directory of a trained arm's stage: by name a `my_module:function` that returns a dictionary
    with `accuracy` for a share or `value` for any other number, and optionally `counts`, or None where it has none."""
    columns: dict[str, str] = Field(default_factory=lambda: dict(COLUMNS))
    """Measures shown in the table, with their headings."""
    arms: Annotated[dict[Name, Arm], AfterValidator(no_twins)]
    """Arms by name, parents before children."""
    controls: tuple[str, ...] = ()
    """Arms of stage 2 that get a twin, `NAME-opsa`, which differs in the method alone: OPSA, one fixed negative
    advantage and no teacher. What an arm gains over its twin is what its teacher and its verdicts are good for."""
    claims: dict[str, Claim]
    """Claims by id."""

    @model_validator(mode="before")
    @classmethod
    def _twins(cls, raw: Any) -> Any:
        """The arms that `controls` adds, behind the others."""
        names, arms = (raw.get("controls"), raw.get("arms")) if isinstance(raw, dict) else (None, None)
        if not isinstance(names, list | tuple) or not isinstance(arms, dict):
            return raw
        return {**raw, "arms": {**arms, **{f"{n}{CONTROL}": _twin(arms[n]) for n in names if n in arms}}}

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if set(self.seeds) & set(self.select_seeds):
            raise ConfigError(
                "select_seeds and seeds overlap: choices would be made on the test",
                got=str(sorted(set(self.seeds) & set(self.select_seeds))),
                fix="give select_seeds numbers that seeds does not have",
            )
        if self.select_on not in self.select_tasks:
            raise _no_such("selection task set", self.select_on, self.select_tasks, "select_on")
        self._arms_are_in_order()
        for name in self.controls:
            if name not in self.arms or self.arms[name].stage != "distill":
                known = [n for n, a in self.arms.items() if a.stage == "distill" and not n.endswith(CONTROL)]
                raise _no_such("arm of stage 2", name, known, "controls")
        for key, claim in self.claims.items():
            for arm_name in (claim.better, claim.worse):
                if arm_name is not None and arm_name not in self.arms:
                    raise _no_such("arm", arm_name, self.arms, f"claims.{key}")
        if taken := {*self.measures} & {*self.test_tasks, "reward"}:
            raise ConfigError(f"a measure and a task set share the name {min(taken)!r}", fix="rename the measure")
        return self

    def _arms_are_in_order(self) -> None:
        seen: list[str] = []
        for name, arm in self.arms.items():
            if arm.after is not None and arm.after not in seen:
                raise _no_such("arm above it", arm.after, seen, f"arms.{name}.after")
            if (arm.stage is None) != (not arm.rates):
                fix = "give both `stage` and `rates`, or neither"
                raise ConfigError("a stage and its learning rates go together", where=f"arms.{name}", fix=fix)
            if name in TAKEN:
                fix = "call it otherwise"
                raise ConfigError("the study keeps its own files under this name", where=f"arms.{name}", fix=fix)
            seen.append(name)
        swept = {len(a.rates) for a in self.arms.values() if a.stage}
        if len(swept) > 1:
            fix = "give each the same number, lest one is chosen from more"
            raise ConfigError("every arm is swept over equally many rates", where="arms", got=str(swept), fix=fix)


def _twin(arm: Any) -> Any:
    """The same arm with the control's objective, in keys as they are written."""
    if not isinstance(arm, dict):
        return arm
    kept = {k: v for k, v in (arm.get("set") or {}).items() if f"{k}.".partition(f"{OBJECTIVE}.")[1] == ""}
    return {**arm, "set": {**kept, OBJECTIVE: {"method": "opsa"}}}


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: no such file, or a key that is unknown, mistyped, inconsistent or there twice.
    """
    text = text_of(path, "study")
    raw = sections_in(text, path, "study")
    if not {"arms", "claims"} & raw.keys():
        got = f"keys {', '.join(map(str, raw))}"
        fix = "give a study file, which names a recipe, arms and claims; see docs/study.md"
        raise ConfigError("this is no study", where=str(path), got=got, fix=fix)
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise readable(error, raw, Written(str(path), text), Study) from None


def _no_such(kind: str, name: str, known: Iterable[str], where: str) -> ConfigError:
    known = list(known)
    close = close_to(name, known)
    fix = f"did you mean {close!r}?" if close else f"one of {', '.join(known) or 'none'}"
    return ConfigError(f"there is no such {kind}", where=where, got=repr(name), fix=fix)


def run_study(target: str, overrides: list[str]) -> StudyResults:
    """Run what is missing of a study, judge its claims, write results.json and the tables made from it.

    Raises:
        ConfigError: overrides were given (a study runs as its file says), the file is wrong, nothing can be written
            where its results go, or another process runs this study.
    """
    if overrides:
        raise ConfigError(
            "a study takes no overrides", got=" ".join(overrides), fix="edit the study file and commit it"
        )
    path = Path(target).resolve()
    study = load_study(path)
    _refuse_training_sets(path, study)
    for where, place in (("units of the study", WORK.resolve()), ("results of the study", path.parent)):
        probe(place, where)
    work = WORK.resolve() / path.parent.name
    with owning(work, "study"):
        return _run(path, study, work)


def _run(path: Path, study: Study, work: Path) -> StudyResults:
    running = _Running(path, study, work)
    build_models(study.models, running.work)
    context = multiprocessing.get_context("spawn")
    with context.Pool(study.workers, initializer=_quiet) as pool:
        for generation in _generations(study):
            running.train(generation, pool)
    arms = {name: running.arm(name) for name in study.arms}
    results = StudyResults(
        arms=arms,
        claims=decide_all(study.claims, arms, study.seeds),
        columns=study.columns if study.columns != COLUMNS else None,
        commit=_commit(path.parent),
        wall_seconds=round(running.seconds(), 1),
    )
    write_json(path.parent / "results.json", results)
    for written in write_tables(path.parent, results):
        console.print(f"wrote {written}")
    console.print(f"wrote {path.parent / 'results.json'}")
    for key, found in results.claims.items():
        console.print(f"  {found.verdict:>14}  {key}: {found.claim}")
    print_next("list", str(WORK / path.parent.name))
    return results


class _Running:
    """A study that is under way: where its units lie, the rates chosen so far, and the time spent, of earlier calls
    too."""

    def __init__(self, path: Path, study: Study, work: Path) -> None:
        self.path, self.study, self.work = path, study, work
        self.clock, self.began = self.work / "clock.json", time.monotonic()
        self.spent = read_json(self.clock, Clock, absent=Clock(0.0)).seconds
        self.chosen: dict[str, float | None] = {}
        self.sweeps: dict[str, dict[str, tuple[float, ...]]] = {}

    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.began

    def train(self, generation: Sequence[str], pool: Pool) -> None:
        """Sweep some arms, choose their rates, and train them with the study's seeds."""
        study = self.study
        swept = [a for a in generation if study.arms[a].stage]
        self.chosen |= dict.fromkeys(set(generation) - set(swept))
        units = [Unit(a, r, s, "select") for a in swept for r in study.arms[a].rates for s in study.select_seeds]
        self.run(units, f"sweep {', '.join(swept) or 'nothing'}", pool)
        for arm in swept:
            sweep = {rate: self._accuracies(arm, rate) for rate in study.arms[arm].rates}
            self.sweeps[arm] = {f"{rate:g}": found for rate, found in sweep.items()}
            self.chosen[arm] = max(sweep, key=lambda r: sum(sweep[r]))
        units = [Unit(a, self.chosen[a], s, "test") for a in generation for s in _seeds(study, a)]
        self.run(units, f"train {', '.join(generation)}", pool)

    def run(self, units: Sequence[Unit], label: str, pool: Pool) -> None:
        """Run the units whose result is not there."""
        jobs = [(unit, self.settings(unit)) for unit in units]
        missing = [(unit, settings, self.work) for unit, settings in jobs if not is_done(self.work, unit, settings)]
        with Bar(label, len(units), len(units) - len(missing)) as bar:
            for name in pool.imap_unordered(run_unit, missing):
                write_json(self.clock, Clock(self.seconds()))
                bar.advance(note=name)

    def arm(self, name: str) -> ArmResult:
        """What was found of an arm."""
        rate = self.chosen[name]
        units = [Unit(name, rate, s, "test") for s in _seeds(self.study, name)]
        return ArmResult(rate, self.sweeps.get(name, {}), tuple(result_of(self.work, u) for u in units))

    def settings(self, unit: Unit) -> Settings:
        """All that decides a unit's result."""
        study, arm = self.study, self.study.arms[unit.arm]
        tasks = study.select_tasks if unit.part == "select" else study.test_tasks
        keys = {**study.set, **arm.set, "run.dir": str(self.work / unit.name), "run.seed": unit.seed}
        keys |= {f"tasks.{name}": spec.model_dump(mode="json") for name, spec in tasks.items()}
        keys["eval.tasks"] = list(tasks)
        if arm.stage:
            keys[f"{arm.stage}.optimizer.lr"] = unit.rate
        parent = None
        if arm.after is not None and study.arms[arm.after].stage is not None:
            parent = self.settings(Unit(arm.after, self.chosen[arm.after], unit.seed, unit.part))
        recipe, models = self.path.parent / study.recipe, self.work / "models"
        return Settings(
            recipe=str(recipe),
            text=recipe.read_text(),
            arm=unit.arm,
            stage=arm.stage,
            keys=keys,
            parent=parent,
            measures=study.measures or None,
            models=str(models) if study.models else None,
            made={n: read_json(models / n / MANIFEST, dict) for n in study.models} or None,
        )

    def _accuracies(self, arm: str, rate: float) -> tuple[float, ...]:
        """On the selection tasks, by selection seed."""
        found = [result_of(self.work, Unit(arm, rate, s, "select")) for s in self.study.select_seeds]
        return tuple(r.measures[self.study.select_on].accuracy or 0.0 for r in found)


def _refuse_training_sets(path: Path, study: Study) -> None:
    """Selection and test sets stand in for sets of the recipe with their names: none that a stage trains on."""
    recipe = load_recipe(path.parent / study.recipe)
    trained = {s.tasks for s in recipe.stages_with_tasks.values()}
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


def _quiet() -> None:
    console.quiet = True
    os.environ["OMP_NUM_THREADS"] = "1"


def _commit(directory: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
