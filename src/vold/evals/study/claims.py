"""Claims of a study, the rule that decides each, and the tables written from the results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from vold.errors import ConfigError, DataError
from vold.evals.stats import paired_difference, t_interval
from vold.evals.study.results import COLUMNS, ArmResult, ClaimFigures, StudyResults, UnitResult, Verdict
from vold.run.recipe import Section

MARK = "<!-- {edge}: table of {name}, written by `vold study` -->"


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


def decide(claim: Claim, arms: Mapping[str, ArmResult], seeds: Sequence[int]) -> Verdict:
    """Apply a claim's rule. The difference is taken seed by seed; an arm without training counts for every seed."""
    better = _values(arms[claim.better].seeds, claim.measure, seeds)
    if claim.worse is None or claim.value is not None:
        return _at_least(claim, better)
    d = paired_difference(better, _values(arms[claim.worse].seeds, claim.measure, seeds))
    if claim.rule == "gain":
        if d.low > 0:
            verdict = "holds"
        elif d.high < 0 or (d.low > -claim.margin and d.high < claim.margin):
            verdict = "does not hold"
        else:
            verdict = "undecided"
        rule = (
            f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed: holds if the 95% interval lies above "
            f"0, does not hold if it lies below 0 or within +-{100 * claim.margin:g} points, else undecided"
        )
    else:
        verdict = "holds" if d.high < claim.margin else "does not hold" if d.low > 0 else "undecided"
        rule = (
            f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed: holds if the 95% interval lies below "
            f"+{100 * claim.margin:g} points, does not hold if it lies above 0, else undecided"
        )
    figures = ClaimFigures(difference=d.difference, low=d.low, high=d.high, p_value=d.p_value, seeds=d.n)
    return Verdict(claim.claim, rule, verdict, figures)


def _at_least(claim: Claim, values: Sequence[float]) -> Verdict:
    low, high = t_interval(values)
    least, mean = claim.value or 0.0, sum(values) / len(values)
    return Verdict(
        claim.claim,
        f"{claim.better} on {claim.measure}: holds if the 95% interval lies above {100 * least:g}%, does not "
        "hold if it lies below, else undecided",
        "holds" if low > least else "does not hold" if high < least else "undecided",
        ClaimFigures(mean=mean, low=low, high=high, seeds=len(values)),
    )


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
    lines += ["", "| claim | difference, points | verdict |", "|---|---|---|"]
    for found in results.claims.values():
        lines.append(f"| {found.claim} | {_figure(found.figures)} | {found.verdict} |")
    return "\n".join(lines + _counts(results.arms))


def _figure(f: ClaimFigures) -> str:
    if f.difference is not None:
        return f"{100 * f.difference:+.1f} [{100 * f.low:+.1f}, {100 * f.high:+.1f}]"
    return f"share: {100 * (f.mean or 0.0):.1f} [{100 * f.low:.1f}, {100 * f.high:.1f}]"


def _cell(rows: Sequence[UnitResult], on: str) -> str:
    name = on.partition("/")[0]
    present = [r for r in rows if name in r.measures]
    if not present:
        return "-"
    scale = 100 if present[0].measures[name].value is None else 1
    values = [_number(r, on) for r in present]
    mean = scale * sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    low, high = t_interval([scale * v for v in values])
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


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
