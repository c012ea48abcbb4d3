"""Claims of a study, and the rule that decides each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

from vold.errors import ConfigError, DataError
from vold.evals.checked import SAME, t_cdf
from vold.evals.sequential import Looks, sequential_p
from vold.evals.stats import holm, mean_stderr, paired_t, t_interval
from vold.evals.study_results import ArmResult, ClaimFigures, UnitResult, Verdict, has_measure, is_share
from vold.run.recipe import Section

UNDECIDED = "undecided"
LEVEL = 0.05
"""Of a claim alone, and after correction of all claims of a study together."""
FEWEST = 3
"""Seeds without which nothing is decided: two agree by chance too often."""


class Claim(Section):
    """A claim about two arms, decided by the 95% interval of their difference over training seeds; or about one."""

    claim: str
    """In words."""
    better: str
    """The arm the claim is about."""
    worse: str | None = None
    """The arm it is compared with; none for `at least`."""
    where: dict[str, tuple[int | float | str, ...]] = Field(default_factory=dict)
    """The region of a claim about arms that go over axes, which speaks of the mean over its points: by AXIS values, by
    ARM/MEASURE the least and the greatest figure of that arm with the selection seeds. All points if absent."""
    measure: str
    """A task set, `SET/KIND` for one kind of its problems, `SET.read` or `SET.reasoned` of pictures, `reward` for the
    final training reward, or a measure of the study's own."""
    rule: Literal["gain", "no gain", "more than", "at least"]
    """`gain`: holds if the interval lies above 0, does not hold if it lies below 0 or within +-margin.
    `no gain`: holds if the interval lies below +margin, does not hold if it lies above 0 (and not below +margin).
    `more than`: holds if the interval lies above `value`, does not hold if it lies below.
    `at least`: of one arm alone; holds if its interval lies above `value`, does not hold if it lies below."""
    margin: float = Field(0.02, ge=0)
    """The smallest difference that counts as a gain."""
    value: float | None = None
    """What `at least` and `more than` ask for."""

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        alone, valued = self.rule == "at least", self.rule in ("at least", "more than")
        if (self.worse is None) != alone or (self.value is not None) != valued:
            fix = "give `better` and `value` alone, or `better` and `worse` alone, or for `more than` all three"
            raise ConfigError("`at least` takes a value and one arm, the other rules two arms and no value", fix=fix)
        for key, want in self.where.items():
            if "/" in key and (len(want) != 2 or any(isinstance(end, str) for end in want)):
                fix = "write the least and the greatest figure, such as [0.1, 0.4]"
                raise ConfigError("a region by a measure has two ends", where=f"where.{key}", got=str(want), fix=fix)
        return self


def decide_all(
    claims: Mapping[str, Claim], arms: Mapping[str, ArmResult], seeds: Sequence[int], looks: Looks | None = None
) -> dict[str, Verdict]:
    """Apply the rules of a study's claims, and correct for their number.

    A claim keeps the verdict it has alone if Holm's correction leaves its p-value at 5% or less, else it is undecided:
    so the chance of any wrong verdict in a study is 5% at most. `looks` says when they were looked at, up to this time.
    """
    found = {key: decide(claim, arms, seeds, looks) for key, claim in claims.items()}
    # A claim that is undecided by itself counts for their number, and can never come before one that is not.
    p_values = [1.0 if v.alone == UNDECIDED else v.figures.p_value for v in found.values()]
    for (key, v), p in zip(list(found.items()), holm(p_values), strict=True):
        figures = replace(v.figures, corrected_p=p)
        found[key] = replace(v, verdict=v.alone if p <= LEVEL else UNDECIDED, figures=figures)
    return found


def decide(claim: Claim, arms: Mapping[str, ArmResult], seeds: Sequence[int], looks: Looks | None = None) -> Verdict:
    """Apply a claim's rule as if it were the only claim. The difference is taken seed by seed; an arm without training
    counts for every seed. Fewer than `FEWEST` seeds, or equal numbers from all of them, decide nothing.

    With `looks` a verdict's p-value is the sequential one of the looks up to this number of seeds."""
    cells = tuple("-".join((arm.cell or {}).values()) for arm in _region(claim, claim.better, arms))
    told = cells if claim.where else None
    if without := _without(claim, arms):
        none = ClaimFigures(p_value=1.0, corrected_p=1.0, seeds=0)
        return Verdict(claim.claim, f"{_about(claim)}: {without}", UNDECIDED, UNDECIDED, none, told)
    shares = is_share((row for arm in _region(claim, claim.better, arms) for row in arm.seeds), claim.measure)
    better, worse = compared(claim, arms, seeds)
    times = [n for n in (looks.at if looks else ()) if n < len(seeds)] + [len(seeds)]
    taken = [_levels(claim, better[:n], None if worse is None else worse[:n]) for n in times]
    levels = [
        (verdict, sequential_p([one[i][1] for one in taken], looks) if looks else p)
        for i, (verdict, p) in enumerate(taken[-1])
    ]
    verdict, p = _decided(levels, len(better))
    figures = ClaimFigures(p_value=p, corrected_p=p, seeds=len(better), share=None if shares else False)
    if worse is None:
        low, high = _known(*seed_interval(better, shares=shares))
        figures = replace(figures, mean=mean_stderr(better)[0], low=low, high=high)
    else:
        d = paired_t(better, worse, shares=shares)
        low, high = _known(d.low, d.high)
        figures = replace(figures, difference=d.difference, low=low, high=high)
    return Verdict(claim.claim, f"{_about(claim)}: {_rule(claim, shares=shares)}", verdict, verdict, figures, told)


def _without(claim: Claim, arms: Mapping[str, ArmResult]) -> str:
    """What keeps a claim from being decided at all, in words; empty if nothing does."""
    for name, of in [(n, _region(claim, n, arms)) for n in (claim.better, claim.worse) if n]:
        if not of:
            return "no point of the grid is there"
        if not has_measure((row for arm in of for row in arm.seeds), claim.measure):
            return f"{name} has no such figure"
    return ""


def _about(claim: Claim) -> str:
    if claim.worse is None:
        return f"{claim.better} on {claim.measure}"
    return f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed"


def _rule(claim: Claim, *, shares: bool) -> str:
    scale, points, percent = (100, " points", "%") if shares else (1, "", "")
    margin, value = f"{scale * claim.margin:g}{points}", f"{scale * (claim.value or 0.0):g}"
    holds, fails = {
        "gain": ("above 0", f"below 0 or within +-{margin}"),
        "no gain": (f"below +{margin}", "above 0"),
        "more than": (f"above {value}{points}", "below"),
        "at least": (f"above {value}{percent}", "below"),
    }[claim.rule]
    return f"holds if the 95% interval lies {holds}, does not hold if it lies {fails}, else undecided"


def _levels(claim: Claim, better: Sequence[float], worse: Sequence[float] | None) -> list[tuple[str, float]]:
    """The smallest level at which each verdict is reached, in the order in which they are given."""
    least = claim.value or 0.0
    if worse is None:
        (mean, stderr), n = mean_stderr(better), len(better)
        return [("holds", _level(mean - least, stderr, n)), ("does not hold", _level(least - mean, stderr, n))]
    d = paired_t(better, worse)
    above, below, under, over, more, less = (
        _level(x, d.stderr, d.n)
        for x in (d.difference, -d.difference, claim.margin - d.difference, claim.margin + d.difference,
                  d.difference - least, least - d.difference)
    )  # fmt: skip
    if claim.rule == "more than":
        return [("holds", more), ("does not hold", less)]
    if claim.rule == "no gain":
        return [("holds", under), ("does not hold", above)]
    return [("holds", above), ("does not hold", below), ("does not hold", max(under, over))]


def _level(distance: float, stderr: float, n: int) -> float:
    """The smallest level at which the interval about a mean ends before what is so far away; 1 for what is on its other
    side, and where the n numbers have no spread."""
    return min(1.0, 2 * t_cdf(-distance / stderr, n - 1)) if stderr > SAME * max(1.0, abs(distance)) else 1.0


def _decided(levels: Sequence[tuple[str, float]], n: int) -> tuple[str, float]:
    """The first verdict whose level is 5% or less, and that level; else undecided, and the smallest."""
    found = next(((verdict, p) for verdict, p in levels if p <= LEVEL and n >= FEWEST), None)
    return found or (UNDECIDED, min(p for _, p in levels))


def seed_interval(values: Sequence[float], *, shares: bool) -> tuple[float, float]:
    """Student's interval over seeds; that of shares ends at 0 and 1."""
    low, high = t_interval(values)
    return (max(0.0, low), min(1.0, high)) if shares else (low, high)


def _known(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if math.isfinite(high - low) else (None, None)


def compared(
    claim: Claim, arms: Mapping[str, ArmResult], seeds: Sequence[int]
) -> tuple[list[float], list[float] | None]:
    """The measure of both arms by seed, that of a family as the mean over its points in the claim's region."""
    better, worse = (
        [by_seed(arm.seeds, claim.measure, seeds) for arm in _region(claim, name, arms)] if name is not None else None
        for name in (claim.better, claim.worse)
    )
    mean = [
        [fmean(of) for of in zip(*values, strict=True)] if values is not None else None for values in (better, worse)
    ]
    return mean[0] or [], mean[1]


def _region(claim: Claim, name: str, arms: Mapping[str, ArmResult]) -> list[ArmResult]:
    """The arm of this name, or those of its family that stand in the claim's region."""
    return [arm for n, arm in arms.items() if name in (n, arm.family) and _inside(claim, arm, arms)]


def _inside(claim: Claim, arm: ArmResult, arms: Mapping[str, ArmResult]) -> bool:
    """Whether an arm stands in the claim's region."""
    cell = arm.cell or {}
    for key, want in claim.where.items():
        if "/" not in key:
            if key in cell and cell[key] not in {str(value) for value in want}:  # else it is the same all along it
                return False
            continue
        name, _, measure = key.partition("/")
        there = [
            fmean(number_of(row, measure) for row in other.tuning)
            for n, other in arms.items()
            if name in (n, other.family) and other.tuning and _beside(other, cell)
            if has_measure(other.tuning, measure)
        ]
        if not any(float(want[0]) <= figure <= float(want[1]) for figure in there):
            return False
    return True


def _beside(other: ArmResult, cell: Mapping[str, str]) -> bool:
    """Whether another arm stands at a point, or at one of many where the point has no value on one of its axes: an arm
    that does not go over an axis is the same all along it."""
    return all(cell.get(axis, value) == value for axis, value in (other.cell or {}).items())


def by_seed(rows: Sequence[UnitResult], on: str, seeds: Sequence[int]) -> list[float]:
    """A measure of an arm for each of these seeds; that of an arm with one result for all."""
    if len(rows) == 1:
        return [number_of(rows[0], on)] * len(seeds)
    found = {r.seed: number_of(r, on) for r in rows}
    return [found[s] for s in seeds]


def number_of(row: UnitResult, on: str) -> float:
    """A measure of one run: a share in [0, 1], or `value` for a measure that is none.

    Raises:
        DataError: it holds neither.
    """
    name, _, kind = on.partition("/")
    found = row.measures[name]
    number = (found.by_kind or {}).get(kind) if kind else found.value if found.accuracy is None else found.accuracy
    if number is None:
        raise DataError("this measure has no figure", where=f"{on} of seed {row.seed}", got=str(found))
    return float(number)
