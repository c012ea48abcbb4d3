"""Studies: arms x seeds under a protocol, with a verdict on every claim.

A study file names arms, learning rates to sweep, seeds and claims. Every arm is swept over equally many rates, judged
on the selection tasks; the chosen rate is trained afresh with the study's seeds and judged on the test tasks. Work is
cut into units (arm, rate, seed) whose results are files, so a stopped study goes on where it was, and any number of
machines that see the directory work at it together.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from vold.demo.checks import check_arms
from vold.demo.origin import UNKNOWN, commit_of, tell_changed, tell_commits
from vold.demo.own_models import build_models, place_of_models
from vold.demo.study_file import Study, load_study
from vold.demo.study_page import maps_of, write_study_page
from vold.demo.units import (
    CELLS,
    Failed,
    Job,
    Unit,
    in_hand,
    keep_units,
    known_units,
    result_of,
)
from vold.demo.workers import all_of, each_ended, quiet, turn
from vold.errors import ConfigError, TrainingError, VoldError
from vold.evals.claims import LEVEL, UNDECIDED, decide_all
from vold.evals.disk import probe
from vold.evals.sequential import nominal
from vold.evals.study_results import COLUMNS, ArmResult, Clock, Look, StudyResults, UnitResult, Verdict
from vold.evals.study_tables import around_looks, write_looks, write_tables
from vold.run.console import Bar, console, print_next
from vold.run.files import read_json, write_json
from vold.run.lock import RunLock
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.demo.workers import Pool

WORK = Path("runs/studies")
"""Where units leave their runs; results go beside the study file."""
UNITS = "units.jsonl"
"""Beside the study file: the result of each of its units. A study goes on from it where no runs are."""


def run_study(target: str) -> StudyResults:
    """Run what is missing of a study, judge its claims, write results.json and the tables and the page made from it.

    Started on several machines, or several times on one, in a directory that all of them see, they share the work.

    Raises:
        ConfigError: the file is wrong, or nothing can be written where its results go.
        TrainingError: a process that ran a unit was killed, or a unit could not be trained; all others were.
    """
    path = Path(target).resolve()
    study = load_study(path)
    _refuse_training_sets(path, study)
    with contextlib.suppress(OSError):
        WORK.mkdir(parents=True, exist_ok=True)  # a probe removes what it makes, below the feet of one that starts too
    for where, place in (("units of the study", WORK.resolve()), ("results of the study", path.parent)):
        probe(place, where)
    running = Running(path, study)
    check_arms(running)
    if study.looks and (protocol := path.parent / "protocol.md").exists():
        around_looks(protocol)  # first: it has to be written in the end
    with turn(running.work):
        build_models(study.models, running.models)
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pool = functools.cache(lambda: stack.enter_context(context.Pool(study.workers, initializer=quiet)))
        running.sweep(pool)
        looked = list(running.looks(pool))
    with turn(running.work):
        return _told(running, looked)


def _told(running: Running, looked: Sequence[Look]) -> StudyResults:
    """Write down what was found."""
    study, home, seeds = running.study, running.path.parent, running.study.seeds[: looked[-1].seeds]
    arms, done = {name: running.arm(name, seeds) for name in study.arms}, running.done(running.jobs.values())
    commits = tuple(sorted({unit.origin.commit for unit in done.values() if unit.origin is not None}))
    tell_commits(commits)
    results = StudyResults(
        arms=arms,
        claims=decide_all(study.claims, arms, seeds, study.looks),
        columns=study.columns if study.columns != COLUMNS else None,
        axes={axis: tuple(values) for axis, values in study.axes.items()} or None,
        looks=tuple(looked) if study.looks else None,
        commits=commits or None,
        commit=running.commit,
        wall_seconds=round(running.seconds(), 1),
    )
    write_json(home / "results.json", results)
    keep_units(home / UNITS, done)
    page = write_study_page(home, results, maps_of(study))
    pages = [*write_tables(home, results), *write_looks(home, results), page]
    for written in (*pages, home / "results.json"):
        console.print(f"wrote {written}")
    for key, found in results.claims.items():
        console.print(f"  {found.verdict:>14}  {key}: {found.claim}")
    print_next("list", str(WORK / CELLS))
    return results


class Running:
    """A study that is under way: where its units lie, the rates chosen so far, and the time spent, of earlier calls
    and of other machines too."""

    def __init__(self, path: Path, study: Study) -> None:
        self.path, self.study, self.units = path, study, WORK.resolve()
        self.work, self.began = self.units / path.parent.name, time.monotonic()
        self.clock = self.work / f"clock-{uuid.uuid4().hex[:8]}.json"
        self.chosen: dict[str, float | None] = {}
        self.sweeps: dict[str, dict[str, tuple[float, ...]]] = {}
        self.diverged: dict[str, dict[str, str]] = {}
        self.commit = commit_of(path.parent)
        self.changed: dict[Unit, list[str]] = {}
        """Units that are known by their settings, and in what they were made of something else."""
        self.models = place_of_models(study.models, self.work)
        self.jobs: dict[Unit, Job] = {}
        self.known = known_units(path.parent / UNITS)
        self.others = dict[tuple[str, str], UnitResult]()
        """What the studies beside this one have stored: a unit that they share is run once."""
        for file in sorted(file for file in path.parent.parent.glob(f"*/{UNITS}") if file.parent != path.parent):
            try:
                self.others |= known_units(file)
            except VoldError as error:
                console.print(Text.assemble(("warn  ", "bold yellow"), f"units of another study are not used: {error}"))

    def seconds(self) -> float:
        """How long this study has run, over all calls."""
        others = [file for file in self.work.glob("clock*.json") if file != self.clock]
        return time.monotonic() - self.began + sum(read_json(file, Clock).seconds for file in others)

    def sweep(self, pool: Pool) -> None:
        """Train every arm at each of its rates with the selection seeds, and choose one."""
        for generation in _generations(self.study):
            units = [u for name in generation for u in self.tried(name)]
            self._run(units, f"sweep {_few(generation)}", pool)
            for name in generation:
                self.choose(name)

    def looks(self, pool: Pool) -> Iterator[Look]:
        """Train with the study's seeds up to each look, until every claim is decided."""
        study = self.study
        for n in study.looks.at if study.looks else (len(study.seeds),):
            seeds = study.seeds[:n]
            for generation in _generations(study):
                units = [u for name in generation for u in self.tested(name, seeds)]
                self._run(units, f"train {_few(generation)}", pool)
            arms = {name: self.arm(name, seeds) for name in study.arms}
            found = decide_all(study.claims, arms, seeds, study.looks)
            look = _look(study, n, found)
            yield look
            if look.ended:
                return

    def tried(self, name: str) -> list[Unit]:
        """The units of an arm with the selection seeds: at every rate, or as it is where a claim asks for that."""
        arm, study = self.study.arms[name], self.study
        rates: tuple[float | None, ...] = arm.rates or ((None,) if name in study.tuned else ())
        return [Unit(name, rate, seed, "select") for rate in rates for seed in study.select_seeds]

    def tested(self, name: str, seeds: Sequence[int]) -> list[Unit]:
        """The units of an arm with test seeds: of the recipe's own student the first alone."""
        arm = self.study.arms[name]
        many = arm.stage is not None or (arm.after is not None and self.study.is_trained(arm.after))
        return [Unit(name, self.chosen[name], seed, "test") for seed in (seeds if many else seeds[:1])]

    def choose(self, name: str) -> None:
        """The rate with the best accuracy on the selection tasks, of those at which training goes through.

        Raises:
            TrainingError: there is none.
        """
        study, arm = self.study, self.study.arms[name]
        if not arm.trains:
            self.chosen[name] = None
            return
        found = {r: [self.result(Unit(name, r, s, "select")) for s in study.select_seeds] for r in arm.rates}
        sweep = {r: tuple(_accuracy(u, study.select_on) for u in of) for r, of in found.items()}
        ended = {r: said[0] for r, of in found.items() if (said := [u.diverged for u in of if u.diverged is not None])}
        self.sweeps[name] = {f"{rate:g}": accuracies for rate, accuracies in sweep.items()}
        self.diverged[name] = {f"{rate:g}": words for rate, words in ended.items()}
        if not sweep.keys() - ended:
            raise TrainingError(
                "training goes through at none of the arm's learning rates",
                where=f"{self.path}: arms.{name}.rates",
                got="; ".join(f"{rate:g}: {words}" for rate, words in ended.items()),
                fix="give lower ones",
            )
        self.chosen[name] = max((r for r in sweep if r not in ended), key=lambda rate: sum(sweep[rate]))

    def arm(self, name: str, seeds: Sequence[int]) -> ArmResult:
        """What was found of an arm."""
        arm = self.study.arms[name]
        tuning = tuple(self.result(u) for u in self.tried(name)) if name in self.study.tuned else None
        runs = tuple(self.result(u) for u in self.tested(name, seeds))
        return ArmResult(
            rate=self.chosen[name],
            sweep=self.sweeps.get(name, {}),
            seeds=runs,
            family=arm.family,
            cell=arm.cell or None,
            tuning=tuning,
            diverged=self.diverged.get(name) or None,
        )

    def result(self, unit: Unit) -> UnitResult:
        """What a unit has found; what it is made of stays in the list of units."""
        return replace(result_of(self.job(unit)), origin=None)

    def done(self, jobs: Iterable[Job]) -> dict[tuple[str, str], UnitResult]:
        """The results of those that have one, by their digests."""
        return {(job.trained, job.judged): result_of(job) for job in jobs if job.done}

    def job(self, unit: Unit) -> Job:
        """A unit with all that decides its result."""
        if unit not in self.jobs:
            job = self._job(unit)
            lists = (known.get((job.trained, job.judged)) for known in (self.known, self.others))
            stored = [found for found in lists if found is not None]
            usable = next((found for found in stored if not job.changed(found)), None)
            self.jobs[unit] = replace(job, known=usable)
            why = next((job.changed(found) for found in stored), job.changed())
            if why and not self.jobs[unit].done:
                self.changed[unit] = why
        return self.jobs[unit]

    def tell_changed(self) -> None:
        """Say, once, which units are run again although their settings are known."""
        tell_changed(self.path.parent.name, self.changed)
        self.changed = {}

    def alone(self, unit: Unit) -> Job:
        """A unit without the one that it starts from."""
        study, arm = self.study, self.study.arms[unit.arm]
        tasks = study.select_tasks if unit.part == "select" else study.test_tasks
        keys = {**study.set, **arm.set, "run.seed": unit.seed}
        keys |= {f"tasks.{name}": spec.model_dump(mode="json") for name, spec in tasks.items()}
        keys |= {**arm.level, "eval.tasks": list(tasks)}
        if arm.trains:
            keys[f"{arm.stage}.optimizer.lr"] = unit.rate
        return Job(
            unit=unit,
            recipe=str(self.path.parent / study.recipe),
            stage=arm.stage,
            keys=keys,
            at=arm.at,
            measures=study.measures,
            models=str(self.models),
            makers=study.models,
            work=self.units,
            origin=replace(UNKNOWN, commit=self.commit),
        )

    def _job(self, unit: Unit) -> Job:
        arm, start = self.study.arms[unit.arm], None
        if arm.after is not None and self.study.is_trained(arm.after):
            start = self.job(Unit(arm.after, self.chosen[arm.after], unit.seed, unit.part))
        return replace(self.alone(unit), start=start).addressed()

    def _run(self, units: Sequence[Unit], label: str, pool: Pool) -> None:
        """Run the units whose result is not there; come back when all of them are, whoever has run them.

        What another process has in hand comes last: it is waited for, or taken over where that process is dead.

        Raises:
            TrainingError: some could not be trained; all others were."""
        jobs, failed = [self.job(unit) for unit in units], dict[Unit, Failed]()
        self.tell_changed()
        with Bar(label, len(jobs), sum(job.done for job in jobs)) as bar:
            while missing := [job for job in jobs if not job.done and job.unit not in failed]:
                free = [job for job in missing if not in_hand(job)] or missing
                ended = 0
                for found in each_ended(free, pool, where=str(self.path)):
                    if isinstance(found, Failed):
                        failed[found.unit] = found
                    write_json(self.clock, Clock(time.monotonic() - self.began))
                    self._keep(jobs)
                    ended += bool(found)
                    bar.advance(found is True)
                if not ended:
                    time.sleep(RunLock.beat)
        if failed:
            raise all_of([*failed.values()])

    def _keep(self, jobs: Iterable[Job]) -> None:
        """Add what is done to the study's list, to which other processes add too."""
        file = self.path.parent / UNITS
        with turn(self.work):
            self.known = known_units(file) | self.known | self.done(jobs)
            keep_units(file, self.known)


def _accuracy(unit: UnitResult, on: str) -> float:
    """On the selection tasks; none of a unit that was not trained to its end."""
    return 0.0 if unit.diverged is not None else unit.measures[on].accuracy or 0.0


def _look(study: Study, n: int, found: Mapping[str, Verdict]) -> Look:
    """What is written down of a look."""
    level, verdicts = LEVEL, {key: v.verdict for key, v in found.items()}
    if study.looks:
        level = nominal(study.looks.fractions, LEVEL, study.looks.spending)[study.looks.at.index(n)]
    return Look(n, level, verdicts, UNDECIDED not in verdicts.values() or n == len(study.seeds))


def _few(names: Sequence[str], most: int = 4) -> str:
    """Some names, in a line."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


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
    """Arms by how many arms stand between them and the recipe's student."""
    depth: dict[str, int] = {}
    for name, arm in study.arms.items():
        depth[name] = depth[arm.after] + 1 if arm.after is not None and study.is_trained(arm.after) else 0
    return [[n for n in depth if depth[n] == d] for d in sorted(set(depth.values()))]
