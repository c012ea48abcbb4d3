"""What a study stores: its results.json beside the study file, and a unit.json for every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vold.run.records import flat

COLUMNS = {"image": "image, %", "text": "text, %", "reward": "final training reward, %"}
"""Columns of a study's table where its file names none."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of one run: `accuracy` for a share of 1, `value` for any other number, over `n` items. `stderr` and
    `by_kind` are those of a task set; `counts` says how often each outcome of a measure was met,
    `curve` what it was by the steps behind it."""

    accuracy: float | None = None
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    by_kind: Mapping[str, float] | None = None
    counts: Mapping[str, int] | None = None
    curve: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Origin:
    """What a unit was made of besides its settings: digests of the user's own code, of data files and of precisions, of
    what was `trained` and of how it was `judged`; and the version and the commit that ran it."""

    trained: Mapping[str, str]
    judged: Mapping[str, str]
    vold: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """One training run and its evaluation. `measures` are by the name of a task set, `SET.read` and `SET.reasoned` of
    sets of pictures, `reward` (the mean training reward of the last tenth of the steps), or a measure of the study's
    own; in the file they stand beside the other keys. `seconds` are those of all calls that have worked at it.
    `diverged` says how training ended of a rate of the sweep that is too high: such a unit has no measures. Units that
    were run before it was kept have no `origin`."""

    seed: int
    rate: float | None
    measures: Mapping[str, Measure] = field(metadata=flat())
    seconds: float
    diverged: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class StoredUnit:
    """A line of units.jsonl beside a study file: a unit's result, under digests of all that decides what is trained and
    of what it is judged on."""

    trained: str
    judged: str
    result: UnitResult


@dataclass(frozen=True)
class Clock:
    """clock.json beside a study's units: the time spent so far, in seconds."""

    seconds: float


@dataclass(frozen=True)
class ArmResult:
    """One arm: the `rate` that was chosen, its accuracies on the selection tasks by rate, one a
    selection seed, and its runs. Of an arm that goes over axes also the arm of the file it is a copy of, and where it
    stands; `tuning` are the runs of an untrained one with the selection seeds. `diverged` are the rates of the sweep at
    which training did not go through, and how it ended."""

    rate: float | None
    sweep: Mapping[str, tuple[float, ...]]
    seeds: tuple[UnitResult, ...]
    family: str | None = None
    cell: Mapping[str, str] | None = None
    tuning: tuple[UnitResult, ...] | None = None
    diverged: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimFigures:
    """The figure a claim is decided by, with its 95% interval over `seeds`: a paired `difference` of two arms, or the
    `mean` of one. The interval is absent where nothing is known of it: equal numbers, of a measure that is no share.

    `p_value` is the smallest level at which the rule decides the claim, 0.05 or less where the 95% interval does;
    `corrected_p` is that with all claims of the study in view (Holm). `share` is false of a measure that is no share of
    1, and absent of others."""

    difference: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float
    corrected_p: float
    seeds: int
    share: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim, the rule in words, and what came of it: holds, does not hold or undecided. `verdict` is with all claims
    of the study in view, `alone` as if it were the only one. `cells` are the points of the grid that it is about."""

    claim: str
    rule: str
    verdict: str
    alone: str
    figures: ClaimFigures
    cells: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Look:
    """The claims were looked at with so many `seeds`; `level` is what a p-value of a claim that stood alone had to
    reach, `verdicts` what came of each, and `ended` whether the study did."""

    seeds: int
    level: float
    verdicts: Mapping[str, str]
    ended: bool


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """results.json of a study. `columns` are the table's own headings by measure, `axes` the values that arms go over,
    `looks` when the claims were looked at; `commit` is the code that ran last, `commits` those that units were run at,
    as far as these say so."""

    arms: Mapping[str, ArmResult]
    claims: Mapping[str, Verdict]
    columns: Mapping[str, str] | None = None
    axes: Mapping[str, tuple[str, ...]] | None = None
    looks: tuple[Look, ...] | None = None
    commits: tuple[str, ...] | None = None
    commit: str
    wall_seconds: float


def has_measure(rows: Iterable[UnitResult], on: str) -> bool:
    """Whether each of these runs has it: a measure of a study's own may find nothing to measure."""
    return all(on.partition("/")[0] in row.measures for row in rows)


def is_share(rows: Iterable[UnitResult], on: str) -> bool:
    """Whether a measure of these runs is a share of 1, as far as any of them has it: figures of shares are written in
    points or percent, and their intervals end where shares do."""
    name, _, kind = on.partition("/")
    found = [row.measures[name] for row in rows if name in row.measures]
    return bool(kind) or all(measure.accuracy is not None for measure in found)
