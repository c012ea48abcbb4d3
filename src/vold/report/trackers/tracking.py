"""The trackers of a stage. All they are told is in the run directory as well, so a tracker that fails loses nothing."""

from __future__ import annotations

import importlib
import json
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from rich.text import Text

from vold.errors import DataError
from vold.report.rollouts import gaps_of, mean_gap
from vold.report.text import number
from vold.run.console import console
from vold.run.files import read_json, write_json
from vold.run.metrics import TRACKING
from vold.run.recipe import dump_recipe
from vold.run.records import to_json
from vold.run.rollouts import load_rollouts, rollout_files
from vold.types.named import is_named, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from vold.run.looks import EvalRow
    from vold.run.metrics import DistillRow, SftRow
    from vold.run.recipe import Recipe
    from vold.run.results import Results
    from vold.run.rollouts import StoredRollout

    Row = Mapping[str, str | float | None]
    """A line of a table by column."""

PROJECT = "vold"
"""The project or experiment of trackers that have them, unless their own settings name another."""
SHOWN = 16
"""Rollouts of a step in a table: two groups of eight. All of them are in the run directory."""
SPELLED, TOKENS = 2, 256
"""Rollouts of a step in a table of tokens, and the first tokens of each that are rows of it."""
LOOKS = "eval/"
"""How the names of evaluations begin that come while a stage trains. That one is there says nothing of its step."""


@dataclass(frozen=True)
class TrackedStage:
    """What a tracker is told when it is opened.

    Attributes:
        run: the run directory.
        stage: `sft`, `distill` or `eval`.
        id: of this stage for as long as its directory lives: a run that was killed goes on under it.
        recipe: the resolved recipe as YAML.
    """

    run: Path
    stage: str
    id: str
    recipe: str

    @property
    def group(self) -> str:
        """The name that the stages of a run share."""
        return self.run.name

    @property
    def name(self) -> str:
        """The name of this stage among all runs of a project."""
        return f"{self.run.name}-{self.stage}-{self.id[:6]}"


class Tracker(Protocol):
    """A place that shows metrics: what `open_tracker` of a module here makes of a `TrackedStage`, and what a class or
    function of the user's own that `run.report_to` names does.

    Attributes:
        next_step: the first step whose metrics it does not have; from there on all is handed over from the files.
    """

    next_step: int

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step; steps come in order."""
        ...

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """Take a table; all rows have the same columns."""
        ...

    def close(self) -> None:
        """Hand over what is still under way."""
        ...


class Tracking:
    """The trackers that `run.report_to` names, for one stage.

    A tracker that raises is given up with one line on screen; the next start hands over what it lacks.

    Args:
        names: see `run.report_to`.
        about: the stage.
    """

    def __init__(self, names: Iterable[str], about: TrackedStage) -> None:
        self._trackers: dict[str, Tracker] = {}
        self._held: dict[int, dict[str, float]] = {}
        for name in names:
            self._guarded(name, partial(self._open, name, about))

    def close(self) -> None:
        """Wait until everything is handed over."""
        self._each(lambda tracker: tracker.close())

    def log(self, row: SftRow | DistillRow) -> None:
        """Hand over the metrics of a step, and what its weights were evaluated to, to those that do not have them."""
        values = {k: v for k, v in to_json(row).items() if k != "step"}
        self.values(row.step, values | self._held.pop(row.step, {}))

    def hold(self, rows: Iterable[EvalRow]) -> None:
        """Keep evaluations for the metrics of their steps: a tracker that had one alone would be past its step."""
        for row in rows:
            figures = {"accuracy": row.accuracy, "difference": row.difference, "low": row.low, "high": row.high}
            found = {f"{LOOKS}{row.set}/{name}": value for name, value in figures.items() if value is not None}
            self._held.setdefault(row.step, {}).update(found)

    def end(self) -> None:
        """Hand over the last evaluation, after which no step comes."""
        for step, values in self._held.items():
            self.values(step, values)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """The same of numbers by name."""
        self._each(lambda tracker: tracker.log(step, values) if step >= tracker.next_step else None)

    def rollouts(self, step: int, file: Path) -> None:
        """Hand over the first stored rollouts of a step, group beside group, and the tokens of the first of them."""
        if not any(step >= tracker.next_step for tracker in self._trackers.values()):
            return
        try:
            stored = load_rollouts(file)
        except DataError as error:  # which no step needs
            console.print(Text.assemble(("warn  ", "bold yellow"), f"trackers lack rollouts of step {step}: {error}"))
            return
        self.table(step, "rollouts", [_row_of(r) for r in stored[:SHOWN]])
        self.table(step, "tokens", [row for place, r in enumerate(stored[:SPELLED]) for row in _tokens_of(place, r)])

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """Hand over a table, if it has rows, to those that are not past its step."""
        if rows:
            self._each(lambda tracker: tracker.table(step, name, rows) if step >= tracker.next_step else None)

    def _open(self, name: str, about: TrackedStage) -> None:
        if is_named(name):
            self._trackers[name] = made(name, {"stage": about}, ("log", "table", "close"))
        else:
            self._trackers[name] = importlib.import_module(f"{__package__}.{name}").open_tracker(about)

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, partial(act, tracker))

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        """Nothing that a tracker raises stops a run: a server that is away, a full disk of its own, a changed API."""
        try:
            act()
        except Exception as error:  # whatever another package raises
            self._trackers.pop(name, None)
            what = f"{name} takes no more of this run, which goes on: {type(error).__name__}: {error}"
            console.print(Text.assemble(("warn  ", "bold yellow"), what))


def track_stage(
    recipe: Recipe, stage: str, history: Iterable[SftRow | DistillRow], looks: Iterable[EvalRow]
) -> Tracking:
    """The trackers of a training stage, whose id is kept in its directory where there are any. They are handed what
    they lack of the steps so far: metrics, evaluations and stored rollouts."""
    names, directory = recipe.run.report_to, recipe.run.dir / stage
    tracking = Tracking(names, _about(recipe, stage, _kept_id(directory) if names else ""))
    tracking.hold(looks)
    stored = rollout_files(directory / "rollouts")
    for row in history if names else ():
        tracking.log(row)
        if row.step in stored:
            tracking.rollouts(row.step, stored[row.step])
    return tracking


def track_results(recipe: Recipe, results: Results) -> None:
    """Hand over an evaluation: accuracies, and tables of figures and of paired differences.

    Its id is made of the results, so an evaluation that is repeated adds nothing and another one stands beside it.
    """
    stored = to_json(results)
    id_ = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([str(recipe.run.dir.resolve()), stored], sort_keys=True)).hex
    tracking = Tracking(recipe.run.report_to, _about(recipe, "eval", id_))
    tracking.values(0, {f"{m}/{s}": f.accuracy for m, sets in results.stages.items() for s, f in sets.items()})
    tracking.table(0, "results", _figures(results))
    tracking.table(0, "paired differences", _pairs(results))
    tracking.close()


def _about(recipe: Recipe, stage: str, id_: str) -> TrackedStage:
    return TrackedStage(recipe.run.dir.resolve(), stage, id_, dump_recipe(recipe))


def _kept_id(directory: Path) -> str:
    file = directory / TRACKING
    if not file.exists():
        write_json(file, TrackingId(uuid.uuid4().hex))
    return read_json(file, TrackingId, fix=f"delete {file}: the stage then goes on as a new run of the trackers").id


@dataclass(frozen=True)
class TrackingId:
    """`tracking.json` of a stage: under which id trackers know it."""

    id: str


def _row_of(stored: StoredRollout) -> Row:
    r = stored.rollout
    return {
        "problem": r.task_id,
        "group": r.group,
        "question": stored.question.prompt,
        "response": "".join(stored.texts()),
        "score": r.grade.score,
        "finish": r.completion.finish,
        "tokens": len(r.completion.ids),
        "advantage": None if r.advantage is None else float(r.advantage.mean()),
        "teacher gap": mean_gap(r),
    }


def _tokens_of(place: int, stored: StoredRollout) -> list[Row]:
    r = stored.rollout
    teacher = None if r.teacher is None else r.teacher.logp
    columns = {"student": r.completion.logps, "teacher": teacher, "gap": gaps_of(r), "advantage": r.advantage}
    numbers = {name: [] if values is None else values[:TOKENS].tolist() for name, values in columns.items()}
    return [
        {"rollout": place, "token": text, **{k: number(v[i]) if v else None for k, v in numbers.items()}}
        for i, text in enumerate(stored.texts()[:TOKENS])
    ]


def _figures(results: Results) -> list[Row]:
    return [
        {"model": m, "set": s, "accuracy": f.accuracy, "low": f.low, "high": f.high, "n": f.n, "k": f.k}
        for m, sets in results.stages.items()
        for s, f in sets.items()
    ]


def _pairs(results: Results) -> list[Row]:
    return [
        {"set": c.set, "model": c.model, "against": c.against, "difference": c.difference, "low": c.low, "high": c.high}
        for c in results.comparisons
    ]
