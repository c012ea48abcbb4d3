"""The units of a study: one training run and its evaluation each, in a directory named after what it holds.

A directory is found again by a digest of all that decides the result, not by the study that asked for it. So what one
study has trained serves another, a study that has changed runs what its change touches, and one that has changed back
runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vold.demo.origin import START, UNKNOWN, changed_at, differing, keep_made_of, made_of, place_for
from vold.demo.study_file import BEFORE
from vold.errors import CheckpointError, Diverged, InUse, TrainingError
from vold.evals.evaluate import evaluate
from vold.evals.overlap import align
from vold.evals.study_results import Measure, Origin, StoredUnit, UnitResult
from vold.objective.custom import load_function
from vold.report.run_page import answers_of
from vold.report.text import Json
from vold.run.answers import outcome_of
from vold.run.files import read_json, read_jsonl, write_json, write_jsonl
from vold.run.folders import drop, latest_checkpoint
from vold.run.lock import last_owner, owning
from vold.run.metrics import METRICS, DistillRow
from vold.run.recipe import Recipe, load_recipe
from vold.run.records import from_json
from vold.run.settings import settings_of
from vold.run.shipped import resolve
from vold.run.summaries import Overlap
from vold.run.view import Run
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

CELLS = "cells"
"""The folder beside those of the studies that holds the units of all of them."""
PIECES = 20
"""Points of a training curve that are stored."""


@dataclass(frozen=True)
class Unit:
    """One training run and its evaluation."""

    arm: str
    rate: float | None
    seed: int
    part: Literal["select", "test"]

    @property
    def name(self) -> str:
        """What it is called where progress is told."""
        return f"{self.arm}/{'as-is' if self.rate is None else f'rate-{self.rate:g}'}/{self.part}-seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A unit with all that decides its result.

    Attributes:
        unit: which one.
        recipe: the recipe's file; `keys` are set over it.
        stage: what it runs.
        start: the unit whose model it starts from, `at` so many steps if that is given; None for the recipe's student.
        measures: functions that read figures off it.
        models: the directory of the study's own models, and `makers` the functions that make them, by name. Those that
            `keys` name decide the result, so that a unit without any serves studies with none.
        work: the directory that holds the cells.
        trained, judged: digests of what is trained, and of what it is judged on.
        origin: what it is made of besides.
        known: its result, where the list beside the study file has it.
    """

    unit: Unit
    recipe: str
    stage: Literal["align", "sft", "distill"] | None
    keys: Mapping[str, object]
    start: Job | None = None
    at: int | None = None
    measures: Mapping[str, str]
    models: str
    makers: Mapping[str, str]
    work: Path
    trained: str = ""
    judged: str = ""
    origin: Origin = UNKNOWN
    known: UnitResult | None = None

    @property
    def home(self) -> Path:
        """The directory of what is trained."""
        return place_for(self.work / CELLS / self.trained, self.origin.trained)

    @property
    def judgement(self) -> Path:
        """The directory, in that one, of its evaluation on these tasks."""
        return place_for(self.home / f"judged-{self.judged}", self.origin.judged)

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return self.known is not None or (self.judgement / "unit.json").exists()

    def changed(self, stored: UnitResult | None = None) -> list[str]:
        """In what it is made of something else than a stored result, or than what lies in its directories."""
        if stored is not None:
            was = stored.origin or UNKNOWN
            return differing(was.trained, self.origin.trained) + differing(was.judged, self.origin.judged)
        there = self.work / CELLS / self.trained
        judged = changed_at(self.home / f"judged-{self.judged}", self.origin.judged)
        return changed_at(there, self.origin.trained) + judged

    def load(self, over: Mapping[str, object]) -> Recipe:
        """The recipe with its keys set, those of `over` last."""
        items = [f"{k}={json.dumps(v)}" for k, v in {**self.keys, **over}.items()]
        for name, value in {"{seed}": str(self.unit.seed), "{models}": self.models}.items():
            items = [item.replace(name, value) for item in items]
        return load_recipe(self.recipe, items)

    def addressed(self) -> Job:
        """The same with its digests."""
        recipe = self.load({})
        named = json.dumps(dict(self.keys))
        made = {name: maker for name, maker in self.makers.items() if f'{{models}}/{name}"' in named}
        begins = {"start": self.start and self.start.trained, "at": self.at, "made": made or None}
        told = {"student": settings_of(recipe, "eval" if self.stage is None else self.stage)}
        if self.stage is None:  # as it is: nothing that it is asked decides what it is
            told = {"student": {k: v for k, v in told["student"].items() if k.startswith(("student.", "run."))}}
        if self.stage == "sft":
            told["traces"] = settings_of(recipe, "traces")
        asked: dict[str, Mapping[str, object]] = {"eval": settings_of(recipe, "eval"), "measures": dict(self.measures)}
        of = {key: value for settings in told.values() for key, value in settings.items()}
        trained = made_of(recipe, of, made.values())
        if self.start is not None:
            trained |= {START + key: digest for key, digest in self.start.origin.trained.items()}
        judged = made_of(recipe, asked["eval"], self.measures.values())
        return replace(
            self,
            trained=self._digest({"stage": self.stage, **begins, **told}),
            judged=self._digest(asked),
            origin=replace(self.origin, trained=trained, judged=judged),
        )

    def _digest(self, value: object) -> str:
        """Of settings that are the same in every directory and on every machine. A model, be it the study's own, counts
        by how it is made: its last bits are those of a processor."""
        text = json.dumps(value, sort_keys=True).replace(json.dumps(self.models)[1:-1], "{models}")
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def model(self) -> Path | str:
        """What it ends with."""
        if self.stage in ("sft", "distill"):
            return self.home / self.stage / "final"
        return self.begins_with()

    def begins_with(self) -> Path | str:
        """The model it starts from.

        Raises:
            CheckpointError: the step it is to start at was not kept.
        """
        if self.start is None:
            return resolve(self.load({}).learner.path)
        if self.at is None:
            return self.start.model()
        kept = self.start.home / str(self.start.stage) / "models"
        path = kept / f"step-{self.at:06d}"
        if not path.is_dir():
            there = ", ".join(str(int(p.name[5:])) for p in sorted(kept.glob("step-*"))) or "none"
            fix = f"set `{self.start.stage}.eval` with `every` and `keep_every` such that it is, or another `at`"
            raise CheckpointError(
                f"no model was kept at step {self.at}", where=str(kept), got=f"steps {there}", fix=fix
            )
        return path


def result_of(job: Job) -> UnitResult:
    """What a unit has stored.

    Raises:
        CheckpointError: nothing yet, or it is damaged.
    """
    if job.known is not None:
        return job.known
    fix = f"delete {job.judgement} and repeat `vold study`: it is run again"
    return read_json(job.judgement / "unit.json", UnitResult, fix=fix)


def known_units(path: Path) -> dict[tuple[str, str], UnitResult]:
    """The results in a list of units, by their digests; {} where there is no list."""
    rows = [from_json(StoredUnit, row, where=str(path)) for row in read_jsonl(path)]
    return {(row.trained, row.judged): row.result for row in rows}


def keep_units(path: Path, units: Mapping[tuple[str, str], UnitResult]) -> None:
    """Write such a list."""
    write_jsonl(path, [StoredUnit(*digests, units[digests]) for digests in sorted(units)])


def in_hand(job: Job) -> bool:
    """Whether some process, here or elsewhere, has claimed this unit and not let go; it may be dead."""
    owner = last_owner(job.home)
    return owner is not None and owner.state == "held"


@dataclass(frozen=True)
class Failed:
    """A unit whose training has ended in an error."""

    unit: Unit
    error: TrainingError


def run_unit(job: Job) -> bool | Failed:
    """Train and evaluate one unit in its own directory; its unit.json is written last.

    Returns whether it is done, which it is not where a living process is at work on it; or how training has failed.
    """
    try:
        with owning(job.home, "study"):
            if not job.done:  # else by another, between two looks
                _run_unit(job)
    except InUse:
        return False
    except TrainingError as error:
        return Failed(job.unit, error)
    return True


def _run_unit(job: Job) -> None:
    began = time.monotonic() - _stepped(job)
    try:
        measures, diverged = _measured(job), None
    except Diverged as error:
        # That a rate is too high is what a sweep is there to find. A rate that was chosen has to go through.
        if job.unit.part != "select":
            raise
        measures, diverged = {}, f"{error.what} ({error.where})" if error.where else error.what
    seconds = round(time.monotonic() - began, 1)
    unit = UnitResult(
        seed=job.unit.seed, rate=job.unit.rate, measures=measures, seconds=seconds, diverged=diverged, origin=job.origin
    )
    write_json(job.judgement / "unit.json", unit)


def _stepped(job: Job) -> float:
    """Seconds of the steps that earlier calls have made, of a unit that goes on or is judged again."""
    rows = read_jsonl(job.home / str(job.stage) / METRICS, whole=True)
    return math.fsum(value for row in rows for key, value in row.items() if key.startswith("seconds"))


def _measured(job: Job) -> dict[str, Measure]:
    """Train a unit, ask it the tasks, and read off it what the study measures."""
    stage, measures, judgement = job.stage, _train(job), job.judgement
    keep_made_of(judgement, job.origin.judged, begun=judgement.exists())
    asked = {"eval.models": {job.unit.arm: str(job.model())}, "run.dir": str(job.judgement)}
    results = evaluate(job.load(asked))
    measures |= {
        name: Measure(accuracy=s.accuracy, stderr=s.stderr, n=s.n, by_kind=s.by_kind)
        for name, s in results.stages[job.unit.arm].items()
    }
    measures |= dict(_readings(answers_of(job.judgement)[job.unit.arm]))
    if stage in ("sft", "distill"):
        for name, function in job.measures.items():
            if (found := load_function(function)(job.home / stage)) is not None:
                measures[name] = from_json(Measure, found, where=function)
        if (state := latest_checkpoint(job.home / stage)) is not None:
            drop(state)  # of a stage that has ended: three times the model
    return measures


def _readings(answers: Mapping[str, Sequence[Json]]) -> Iterator[tuple[str, Measure]]:
    """Of sets whose pictures are known: among answers that say what they read, the share that read it right (`read`),
    and among those the share that are right (`reasoned`)."""
    for name, rows in answers.items():
        said = [row for row in rows if isinstance(row.get("read"), bool)]
        well = [row for row in said if row["read"]]
        if said:
            yield f"{name}.read", Measure(accuracy=len(well) / len(said), n=len(said))
        if well:
            right = sum(outcome_of(row) == "right" for row in well)
            yield f"{name}.reasoned", Measure(accuracy=right / len(well), n=len(well))


def _train(job: Job) -> dict[str, Measure]:
    """Train what is to be judged, and what it starts from where only that one's result has come here."""
    start = job.start
    if start is not None and start.known is not None and not Path(start.model()).is_dir():
        with owning(start.home, "study"):
            _train(start)
    home = job.home
    begun = (home / str(job.stage)).exists() or any(home.glob("judged-*"))
    keep_made_of(home, job.origin.trained, begun=begun)
    recipe = job.load({"run.dir": str(home)})
    torch.set_num_threads(recipe.run.threads)  # for the study's measures too, which are outside the stages
    return dict(_trained(job, recipe))


def _trained(job: Job, recipe: Recipe) -> Iterator[tuple[str, Measure]]:
    """Run the unit's stage; what it shows of itself."""
    over = {"run.dir": str(job.home)}
    if job.stage == "sft":
        make_traces(recipe)
        sft(recipe)
    if job.stage == "distill":
        distill(job.load({**over, "distill.init": str(job.begins_with())}))
        yield "reward", _final_reward(Run(job.home).metrics("distill"))
    if job.stage == "align":
        found = align(job.load({**over, "student.path": str(job.begins_with())}))
        yield from _before(found)


def _before(found: Overlap) -> Iterator[tuple[str, Measure]]:
    for name, figure in BEFORE.items():
        value = getattr(found, figure)
        if value is not None:
            yield name, Measure(value=value) if figure == "kl" else Measure(accuracy=value)


def _final_reward(rows: Sequence[DistillRow]) -> Measure:
    """Mean training reward over the last tenth of the steps, and its curve: means of equal pieces of the run."""
    last = rows[-max(1, len(rows) // 10) :]
    size = max(1, len(rows) // PIECES)
    pieces = [rows[i : i + size] for i in range(0, len(rows), size)]
    curve = {str(part[-1].step + 1): round(sum(r.reward for r in part) / len(part), 4) for part in pieces}
    return Measure(accuracy=sum(r.reward for r in last) / len(last), n=len(last), curve=curve)
