"""`vold study STUDY --plan`: what a study costs and what it can show, before it runs.

Units are counted from the file, hours from seconds that units of the same kind have taken, and the detectable
difference from the spread of paired differences that results hold. Where none are stored the figures of the studies
beside this one stand in, and the plan says so.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median

from vold.demo.checks import check_arms
from vold.demo.study import Running
from vold.demo.study_file import Study, load_study
from vold.demo.units import Unit, result_of
from vold.errors import CheckpointError, ConfigError, DataError, VoldError
from vold.evals.claims import LEVEL, Claim, compared, number_of
from vold.evals.power import Spread, detectable, seeds_for, spread_of
from vold.evals.sequential import nominal
from vold.evals.study_results import ArmResult, StudyResults, UnitResult, is_share
from vold.report.tables import print_table
from vold.run.console import console, print_next
from vold.run.files import read_json

POWER = 0.8
"""The chance with which a detectable difference is shown."""
WORST = Spread(0.03**2, 0.5)
"""Where nothing is stored at all: 3 points from seed to seed, and two arms that are right half of the time, each on its
own."""


@dataclass(frozen=True)
class ArmPlan:
    """An arm of the file, with its copies: units of the sweep and of the test, how many are done, seconds of one (None
    where nothing is known of it) and whose seconds those are."""

    arm: str
    swept: int
    tested: int
    done: int
    seconds: float | None
    source: str


@dataclass(frozen=True)
class ClaimPlan:
    """A claim: seeds, the level it is decided at, the standard deviation of a seed's difference and whose that is, the
    true difference (of `at least`, the mean) with which it holds with 80% chance, and the seeds that the true
    `difference` needs (None: over 1,000, or none would do). `no gain` is planned for a true difference of 0. Figures of
    a measure that is no `share` are in its own unit."""

    claim: str
    seeds: int
    level: float
    sd: float
    source: str
    detectable: float
    difference: float
    needs: int | None
    share: bool = True


@dataclass(frozen=True)
class Plan:
    """What a study costs and can show. `hours` are those left to every look, by its seeds; they leave out `untimed`
    units, of arms of whose seconds nothing is known."""

    arms: tuple[ArmPlan, ...]
    claims: tuple[ClaimPlan, ...]
    hours: Mapping[int, float]
    untimed: int
    workers: int


def plan_study(target: str, difference: str | None = None) -> Plan:
    """Work out and print what a study costs and can show; nothing is run and nothing is written.

    Args:
        target: the study file.
        difference: in points; of every claim about shares it is told how many seeds that needs. If absent, and of other
            claims, the claim's margin, above the value that it asks for.

    Raises:
        ConfigError: as `run_study`; or a difference that is none.
    """
    wanted = None if difference is None else _points(difference)
    path = Path(target).resolve()
    running = Running(path, load_study(path))
    check_arms(running)
    stored = _Stored(path)
    plan = _planned(running, stored, wanted)
    running.tell_changed()
    _print(plan, path.parent.name)
    print_next("study", target)
    return plan


def _points(text: str) -> float:
    """A difference in points, as a share."""
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0 < points <= 100:
        raise ConfigError(
            "this is no difference in points", where="--difference", got=repr(text), fix="5 means 5 points"
        )
    return points / 100


def _planned(running: Running, stored: _Stored, difference: float | None) -> Plan:
    study = running.study
    todo = {name: _Todo(running, study.family(name)) for name in study.names()}
    seconds = {name: stored.seconds(name, one.seconds, _stage(study, name)) for name, one in todo.items()}
    arms = tuple(ArmPlan(name, one.swept, len(one.test), one.done, *seconds[name]) for name, one in todo.items())
    times = study.looks.at if study.looks else (len(study.seeds),)
    hours = {n: sum(one.left(study.seeds[:n]) * (seconds[name][0] or 0.0) for name, one in todo.items()) for n in times}
    untimed = sum(one.left(study.seeds) for name, one in todo.items() if seconds[name][0] is None)
    claims = tuple(_claim(study, key, claim, stored, difference) for key, claim in study.claims.items())
    return Plan(arms, claims, {n: s / study.workers / 3600 for n, s in hours.items()}, untimed, study.workers)


class _Todo:
    """The units of an arm with its copies."""

    def __init__(self, running: Running, names: Mapping[str, object]) -> None:
        self.swept = self.done = 0
        self.missing, self.test, self.seconds = 0, list[tuple[int, bool]](), list[float]()
        for name in names:
            tried = running.tried(name)
            there = [self._look(running, unit) for unit in tried]
            self.swept, self.missing = self.swept + len(tried), self.missing + there.count(False)
            _choose(running, name, all(there))
            chosen = name in running.chosen
            units = running.tested(name, running.study.seeds) if chosen else _unchosen(running, name)
            self.test += [(unit.seed, chosen and self._look(running, unit)) for unit in units]
        self.done = self.swept - self.missing + sum(done for _, done in self.test)

    def left(self, seeds: Sequence[int]) -> int:
        """Units that are missing with these test seeds."""
        return self.missing + sum(not done for seed, done in self.test if seed in seeds)

    def _look(self, running: Running, unit: Unit) -> bool:
        """Whether a unit is done; its seconds are kept."""
        after = running.study.arms[unit.arm].after
        while after is not None:
            if after not in running.chosen:
                return False
            after = running.study.arms[after].after
        job = running.job(unit)
        if job.done:
            self.seconds.append(result_of(job).seconds)
        return job.done


def _choose(running: Running, name: str, swept: bool) -> None:
    """The rate of an arm, where it can be known by now."""
    arm = running.study.arms[name]
    if not arm.trains or len(arm.rates) == 1:
        running.chosen[name] = arm.rates[0] if arm.rates else None
    elif swept:
        running.choose(name)


def _unchosen(running: Running, name: str) -> list[Unit]:
    return [Unit(name, None, seed, "test") for seed in running.study.seeds]


def _stage(study: Study, name: str) -> str | None:
    return next(iter(study.family(name).values())).stage


class _Stored:
    """What results hold, of this study and of those beside it."""

    def __init__(self, path: Path) -> None:
        self.own = _results(path.parent)
        homes = sorted(file.parent for file in path.parent.parent.glob("*/results.json") if file.parent != path.parent)
        found = {home: _results(home) for home in homes if (home / "study.yaml").exists()}
        self.others = {home: results for home, results in found.items() if results is not None}
        self.study_of = cache(load_study)  # every arm asks
        recipe = _recipe_of(path, self.study_of)
        self.kin = {h: r for h, r in self.others.items() if _recipe_of(h / "study.yaml", self.study_of) == recipe}
        """Those of the same recipe: models of another size take other times."""

    def seconds(self, name: str, measured: Sequence[float], stage: str | None) -> tuple[float | None, str]:
        """Of a unit of this arm, and where that is from."""
        if measured:
            return median(measured), f"median of {len(measured)} units here"
        own = [u.seconds for n, arm in self._arms() if name in (n, arm.family) for u in arm.seeds]
        if own:
            return median(own), "results.json"
        for home, results in self.kin.items():
            arms = self.study_of(home / "study.yaml").arms
            of = [
                u.seconds for n, arm in results.arms.items() if n in arms and arms[n].stage == stage for u in arm.seeds
            ]
            if of:
                return median(of), f"median of {home.name}"
        return None, "not known"

    def _arms(self) -> Iterator[tuple[str, ArmResult]]:
        yield from (self.own.arms.items() if self.own else ())

    def is_share(self, measure: str) -> bool:
        """Whether a measure is a share of 1, as far as any results hold it."""
        known = [results for results in (self.own, *self.others.values()) if results is not None]
        return is_share((u for results in known for arm in results.arms.values() for u in arm.seeds), measure)

    def spread(self, claim: Claim) -> tuple[Spread, str]:
        """Of a claim's differences from seed to seed, and where it is from."""
        if self.own is not None:
            seeds = next((look.seeds for look in (self.own.looks or ())[-1:]), None)
            runs = [arm for name, arm in self.own.arms.items() if claim.better in (name, arm.family)]
            names = [u.seed for u in max(runs, key=lambda arm: len(arm.seeds)).seeds][:seeds] if runs else []
            try:
                better, worse = compared(claim, self.own.arms, names)
                return _spread(better, worse, *_items(runs, claim.measure)), "results.json"
            except (VoldError, KeyError, ValueError):
                pass  # of arms that this file does not have any more, or of one seed
        near = self.kin or self.others
        found = [spread for results in near.values() for spread in _pairs(results, claim.measure)]
        if not found:
            return WORST, "assumed: 3 points between seeds, and half of the answers right"
        seeds_, items = median(s.seeds for s in found), median(s.items for s in found)
        return Spread(seeds_, items), f"median of {len(found)} pairs of {', '.join(h.name for h in near)}"


def _recipe_of(file: Path, study_of: Callable[[Path], Study]) -> Path | None:
    """None of a file that is no study, or not any more."""
    with contextlib.suppress(VoldError):
        return (file.parent / study_of(file).recipe).resolve()
    return None


def _results(home: Path) -> StudyResults | None:
    file = home / "results.json"
    try:
        return read_json(file, StudyResults) if file.exists() else None
    except CheckpointError:
        return None


def _pairs(results: StudyResults, measure: str) -> Iterator[Spread]:
    """Of every two arms next to each other in a study that have this measure for two seeds or more."""
    values = {n: [_figure(u, measure) for u in arm.seeds] for n, arm in results.arms.items() if len(arm.seeds) > 1}
    has = [name for name, of in values.items() if all(v is not None for v in of)]
    for one, two in itertools.pairwise(has):
        if len(values[one]) == len(values[two]):
            yield _spread(values[one], values[two], *_items([results.arms[one], results.arms[two]], measure))


def _figure(unit: UnitResult, measure: str) -> float | None:
    """A measure, of all problems or of one kind (`SET/KIND`); None where the unit has none."""
    with contextlib.suppress(KeyError, DataError):
        return number_of(unit, measure)
    return None


def _spread(better: Sequence[float | None], worse: Sequence[float | None] | None, items: float, n: int) -> Spread:
    second = [0.0] * len(better) if worse is None else worse
    return spread_of([(a or 0.0) - (b or 0.0) for a, b in zip(better, second, strict=True)], items, n)


def _items(arms: Sequence[ArmResult], measure: str) -> tuple[float, int]:
    """What the answer to one item adds to the variance of a difference of two arms, each on its own, and of how many
    items an accuracy is the mean; nothing of one for a measure without them."""
    rows: list[UnitResult] = [u for arm in arms for u in arm.seeds]
    found = [u.measures[measure] for u in rows if measure in u.measures]
    known = [(m.stderr**2 * m.n, m.n) for m in found if m.stderr is not None and m.n]
    return (2 * fmean(v for v, _ in known), known[0][1]) if known else (0.0, 1)


def _claim(study: Study, key: str, claim: Claim, stored: _Stored, difference: float | None) -> ClaimPlan:
    (spread, source), shares = stored.spread(claim), stored.is_share(claim.measure)
    difference = difference if shares else None
    level, n = LEVEL / len(study.claims), len(study.seeds)
    if study.looks:
        level = nominal(study.looks.fractions, level, study.looks.spending)[-1]
    tasks = study.test_tasks.get(re.split("[./]", claim.measure)[0])
    size = getattr(tasks, "size", None)
    sd = spread.sd(size) if size else math.sqrt(spread.seeds)  # no items are known of a measure of a study's own
    shown, from_ = detectable(n, sd, level, POWER), claim.value or 0.0
    true = from_ + (difference or claim.margin)  # and a rule is decided by how far that is from what it asks for
    if claim.rule == "more than":
        true = difference or true
    distance = true - from_
    if claim.rule == "no gain":
        shown, from_, true, distance = -shown, claim.margin, 0.0, claim.margin
    return ClaimPlan(
        claim=key,
        seeds=n,
        level=level,
        sd=sd,
        source=source,
        detectable=from_ + shown,
        difference=true,
        needs=seeds_for(distance, sd, level, POWER),
        share=shares,
    )


def _print(plan: Plan, name: str) -> None:
    rows = [
        (a.arm, str(a.swept), str(a.tested), str(a.done), "-" if a.seconds is None else f"{a.seconds:.0f}", a.source)
        for a in plan.arms
    ]
    heads = ("arm", ">sweep", ">test", ">done", ">seconds a unit", "from")
    print_table(heads, rows, f"units of {name}")
    whole, done = sum(a.swept + a.tested for a in plan.arms), sum(a.done for a in plan.arms)
    console.print(f"{whole} units, {done} done; {plan.workers} side by side")
    timed = plan.untimed < whole - done or done == whole
    for seeds, hours in plan.hours.items():
        console.print(f"  to {seeds} seeds: " + (f"{hours:.1f} hours left" if timed else "hours are not known"))
    if plan.untimed:
        console.print(f"  without {plan.untimed} units of arms that have not run anywhere yet")
    if plan.claims:
        lines = [_line(c) for c in plan.claims]
        columns = ("claim", ">seeds", ">level", ">sd of a seed", ">shown at 80%", ">points: seeds", "spread from")
        own = "" if all(c.share for c in plan.claims) else "; of what is no share in its own unit"
        print_table(columns, lines, f"what the claims can show, in points{own}")


def _line(c: ClaimPlan) -> tuple[str, ...]:
    sd, shown, true = (
        (f"{100 * c.sd:.1f}", f"{100 * c.detectable:.1f}", f"{100 * c.difference:g}")
        if c.share
        else (f"{c.sd:.3g}", f"{c.detectable:.4g}", f"{c.difference:g}")
    )
    return c.claim, str(c.seeds), f"{c.level:.2g}", sd, shown, f"{true}: {c.needs or 'over 1,000'}", c.source
