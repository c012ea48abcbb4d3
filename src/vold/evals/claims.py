"""Claims of a study, the rule that decides each, and the tables written from the results."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from vold.errors import ConfigError, DataError
from vold.evals.checked import SAME, t_cdf
from vold.evals.stats import holm, mean_stderr, paired_t, t_interval
from vold.evals.study_results import COLUMNS, ArmResult, ClaimFigures, StudyResults, UnitResult, Verdict
from vold.run.recipe import Section

MARK = "<!-- {edge}: table of {name}, written by `vold study` -->"
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
    measure: str
    """A task set, `SET/KIND` for one kind of its problems, `reward` for the final training reward, or a measure of the
    study's own."""
    rule: Literal["gain", "no gain", "at least"]
    """`gain`: holds if the interval lies above 0, does not hold if it lies below 0 or within +-margin.
    `no gain`: holds if the interval lies below +margin, does not hold if it lies above 0 (and not below +margin).
    `at least`: of one arm alone; holds if its interval lies above `value`, does not hold if it lies below."""
    margin: float = 0.02
    """The smallest difference that counts as a gain."""
    value: float | None = None
    """What `at least` asks for."""

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        alone = self.rule == "at least"
        if (self.worse is None) != alone or (self.value is not None) != alone:
            fix = "give `better` and `value` alone, or `better` and `worse` alone"
            raise ConfigError("`at least` takes a value and one arm, the other rules two arms and no value", fix=fix)
        return self


def decide_all(claims: Mapping[str, Claim], arms: Mapping[str, ArmResult], seeds: Sequence[int]) -> dict[str, Verdict]:
    """Apply the rules of a study's claims, and correct for their number.

    A claim keeps the verdict it has alone if Holm's correction leaves its p-value at 5% or less, else it is undecided:
    so the chance of any wrong verdict in a study is 5% at most.
    """
    found = {key: decide(claim, arms, seeds) for key, claim in claims.items()}
    # A claim that is undecided by itself counts for their number, and can never come before one that is not.
    p_values = [1.0 if v.alone == UNDECIDED else v.figures.p_value for v in found.values()]
    for (key, v), p in zip(list(found.items()), holm(p_values), strict=True):
        figures = replace(v.figures, corrected_p=p)
        found[key] = replace(v, verdict=v.alone if p <= LEVEL else UNDECIDED, figures=figures)
    return found


def decide(claim: Claim, arms: Mapping[str, ArmResult], seeds: Sequence[int]) -> Verdict:
    """Apply a claim's rule as if it were the only claim. The difference is taken seed by seed; an arm without training
    counts for every seed. Fewer than `FEWEST` seeds, or equal numbers from all of them, decide nothing."""
    better = _values(arms[claim.better].seeds, claim.measure, seeds)
    if claim.worse is None or claim.value is not None:
        return _at_least(claim, better)
    d = paired_t(better, _values(arms[claim.worse].seeds, claim.measure, seeds))
    above, below, under, over = (
        _level(x, d.stderr, d.n)
        for x in (d.difference, -d.difference, claim.margin - d.difference, claim.margin + d.difference)
    )
    rule = f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed: holds if the 95% interval lies "
    if claim.rule == "gain":
        levels = [("holds", above), ("does not hold", below), ("does not hold", max(under, over))]
        rule += f"above 0, does not hold if it lies below 0 or within +-{100 * claim.margin:g} points, else undecided"
    else:
        levels = [("holds", under), ("does not hold", above)]
        rule += f"below +{100 * claim.margin:g} points, does not hold if it lies above 0, else undecided"
    verdict, p = _decided(levels, d.n)
    low, high = _known(d.low, d.high)
    figures = ClaimFigures(difference=d.difference, low=low, high=high, p_value=p, corrected_p=p, seeds=d.n)
    return Verdict(claim.claim, rule, verdict, verdict, figures)


def _at_least(claim: Claim, values: Sequence[float]) -> Verdict:
    (mean, stderr), n, least = mean_stderr(values), len(values), claim.value or 0.0
    levels = (("holds", _level(mean - least, stderr, n)), ("does not hold", _level(least - mean, stderr, n)))
    verdict, p = _decided(levels, n)
    low, high = _known(*_interval(values))
    return Verdict(
        claim.claim,
        f"{claim.better} on {claim.measure}: holds if the 95% interval lies above {100 * least:g}%, does not "
        "hold if it lies below, else undecided",
        verdict,
        verdict,
        ClaimFigures(mean=mean, low=low, high=high, p_value=p, corrected_p=p, seeds=n),
    )


def _level(distance: float, stderr: float, n: int) -> float:
    """The smallest level at which the interval about a mean ends before what is so far away; 1 for what is on its other
    side, and where the n numbers have no spread."""
    return min(1.0, 2 * t_cdf(-distance / stderr, n - 1)) if stderr > SAME * max(1.0, abs(distance)) else 1.0


def _decided(levels: Sequence[tuple[str, float]], n: int) -> tuple[str, float]:
    """The first verdict whose level is 5% or less, and that level; else undecided, and the smallest."""
    found = next(((verdict, p) for verdict, p in levels if p <= LEVEL and n >= FEWEST), None)
    return found or (UNDECIDED, min(p for _, p in levels))


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval over seeds; that of shares ends at 0 and 1."""
    low, high = t_interval(values)
    return (max(0.0, low), min(1.0, high)) if all(0 <= v <= 1 for v in values) else (low, high)


def _known(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if math.isfinite(high - low) else (None, None)


def _values(rows: Sequence[UnitResult], on: str, seeds: Sequence[int]) -> list[float]:
    if len(rows) == 1:
        return [_number(rows[0], on)] * len(seeds)
    by_seed = {r.seed: _number(r, on) for r in rows}
    return [by_seed[s] for s in seeds]


def _number(row: UnitResult, on: str) -> float:
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


def table(results: StudyResults) -> str:
    """Arms, claims and counts as Markdown."""
    columns = COLUMNS if results.columns is None else results.columns
    lines = [f"| arm | learning rate | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for name, arm in results.arms.items():
        rate = "-" if arm.rate is None else f"{arm.rate:g}"
        cells = [_cell(arm.seeds, on) for on in columns]
        lines.append(f"| {name} | {rate} | {' | '.join(cells)} |")
    lines += ["", "| claim | difference, points | p | corrected p | alone | verdict |", "|---" * 6 + "|"]
    for found in results.claims.values():
        p, corrected = map(_p, (found.figures.p_value, found.figures.corrected_p))
        lines.append(
            f"| {found.claim} | {_figure(found.figures)} | {p} | {corrected} | {found.alone} | {found.verdict} |"
        )
    return "\n".join(lines + _counts(results.arms))


def _figure(f: ClaimFigures) -> str:
    if f.difference is not None:
        return _with_interval(100 * f.difference, f.low, f.high, "+.1f")
    return "share: " + _with_interval(100 * (f.mean or 0.0), f.low, f.high, ".1f")


def _with_interval(middle: float, low: float | None, high: float | None, form: str, scale: float = 100) -> str:
    if low is None or high is None:
        return f"{middle:{form}}"
    return f"{middle:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _cell(rows: Sequence[UnitResult], on: str) -> str:
    """The mean over seeds with its interval, which equal numbers do not have."""
    name = on.partition("/")[0]
    present = [r for r in rows if name in r.measures]
    if not present:
        return "-"
    scale = 100 if present[0].measures[name].value is None else 1
    values = [_number(r, on) for r in present]
    apart = len(values) > 1 and max(values) > min(values)
    low, high = _interval(values) if apart else (None, None)
    return _with_interval(scale * sum(values) / len(values), low, high, ".1f", scale)


def _counts(arms: Mapping[str, ArmResult]) -> list[str]:
    """A table for every measure that counts something, over all seeds."""
    lines = []
    for arm, found in arms.items():
        for name in [k for k, m in found.seeds[0].measures.items() if m.counts is not None]:
            pooled: Counter[str] = Counter()
            for row in found.seeds:
                pooled.update(row.measures[name].counts or {})
            keys = sorted(pooled, key=lambda k: (not _is_number(k), float(k) if _is_number(k) else 0.0, k))
            shares = [f"{100 * pooled[k] / pooled.total():.1f}" for k in keys]
            lines += ["", f"| {name} of {arm} | {' | '.join(keys)} |", "|---" * (1 + len(keys)) + "|"]
            lines += [f"| share of {pooled.total()}, % | {' | '.join(shares)} |"]
    return lines


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


def write_tables(directory: Path, results: StudyResults) -> list[Path]:
    """Replace the study's table wherever the README or the docs hold its marks; returns the files changed."""
    begin, end = (MARK.format(edge=e, name=directory.name) for e in ("begin", "end"))
    root = directory.parent.parent
    changed = []
    for file in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not file.exists():
            continue
        text = file.read_text()
        new = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _: f"{begin}\n{table(results)}\n{end}",
            text,
            flags=re.DOTALL,
        )
        if new != text:
            file.write_text(new)
            changed.append(file)
    return changed
