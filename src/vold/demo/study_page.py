"""A study's results as one page: claims as a forest plot, the map of its axes, arms and their training curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from vold.evals.claims import by_seed, seed_interval
from vold.evals.stats import paired_t
from vold.evals.study_results import COLUMNS, ArmResult, StudyResults, Verdict, has_measure, is_share
from vold.evals.study_tables import cell_of, diverged
from vold.report.charts import Series, interval_strip, line_chart, scatter_chart
from vold.report.text import DASH
from vold.report.write import write_page

if TYPE_CHECKING:
    from markupsafe import Markup

    from vold.demo.study_file import Study

PAGE = "report.html"
BEFORE = {
    "failing": "prompts none of whose rollouts passes",
    "passing": "rollouts that pass before",
    "top1": "top-1 agreement",
}
"""Measures before training that a gain is drawn against."""
LINES = 4
"""Lines of a chart."""


def write_study_page(directory: Path, results: StudyResults, pairs: Sequence[tuple[str, str, str]]) -> Path:
    """Write the page beside the results. Returns the file.

    Args:
        directory: the study's.
        results: what it has found.
        pairs: two arms that go over the axes and a measure, each of which becomes a map of their difference.
    """
    content = {
        "name": directory.name,
        "commit": results.commit,
        "looks": results.looks,
        "seeds": max((len(arm.seeds) for arm in results.arms.values()), default=0),
        "claims": _claims(results.claims),
        "maps": [found for pair in pairs if (found := _map(results, *pair))],
        "scatters": [chart for pair in pairs[:1] for chart in _scatters(results, *pair)],
        "levels": [*_levels(results)],
        "curves": [*_curves(results)],
        "columns": (results.columns or COLUMNS).values(),
        "arms": [
            (name, DASH if arm.rate is None else f"{arm.rate:g}", _row(results, arm))
            for name, arm in results.arms.items()
        ],
        "diverged": [*diverged(results.arms)],
    }
    return write_page(directory / PAGE, "study_page.html.j2", content)


def maps_of(study: Study) -> list[tuple[str, str, str]]:
    """What is drawn as a map: every two arms over axes that a claim compares, on its measure."""
    pairs = [(c.better, c.worse, c.measure) for c in study.claims.values() if c.worse is not None]
    over = {arm.family for arm in study.arms.values()}
    there = dict.fromkeys((a, b, on) for a, b, on in pairs if a in over and b in over)
    return [(a, b, on) for i, (a, b, on) in enumerate(there) if (b, a, on) not in list(there)[:i]]


def _claims(claims: Mapping[str, Verdict]) -> list[dict[str, object]]:
    """What the table of claims shows. Differences of shares alone are drawn: they have a scale in common."""
    drawn = {v: v.figures for v in claims.values() if v.figures.difference is not None and v.figures.share is not False}
    reach = max((abs(x) for f in drawn.values() for x in (f.difference, f.low, f.high) if x is not None), default=0.0)
    out: list[dict[str, object]] = []
    for v in claims.values():
        f = v.figures
        row: dict[str, object] = {
            "claim": v.claim,
            "rule": v.rule,
            "cells": v.cells,
            "verdict": v.verdict,
            "strip": interval_strip(f.difference, f.low, f.high, reach=reach) if v in drawn else "",
            "seeds": f.seeds,
            "share": f.share is not False,
        }
        value = f.mean if f.difference is None else f.difference
        row |= {"value": value, "signed": f.mean is None, "low": f.low, "high": f.high, "p": f.p_value}
        out.append({**row, "corrected": f.corrected_p})
    return out


def _row(results: StudyResults, arm: ArmResult) -> list[str]:
    cells = [cell_of(arm.seeds, on) for on in results.columns or COLUMNS]
    return [DASH if cell == "-" else cell for cell in cells]


def _differences(
    results: StudyResults, better: str, worse: str, measure: str
) -> dict[tuple[str, ...], tuple[float, float, float]]:
    """Difference and interval by point."""
    by = [
        {tuple((a.cell or {}).values()): a for a in results.arms.values() if a.family == name}
        for name in (better, worse)
    ]
    out = {}
    for cell in by[0].keys() & by[1].keys():
        if not has_measure((row for arms in by for row in arms[cell].seeds), measure):
            continue
        runs = [arms[cell].seeds for arms in by]
        seeds = [u.seed for u in max(runs, key=len)]  # a single result counts for every seed of the other arm
        if len(seeds) < 2:
            continue
        first, second = (by_seed(rows, measure, seeds) for rows in runs)
        d = paired_t(first, second, shares=is_share(runs[0], measure))
        out[cell] = (d.difference, d.low, d.high)
    return out


def _are_shares(results: StudyResults, measure: str) -> bool:
    return is_share((row for arm in results.arms.values() for row in arm.seeds), measure)


def _map(results: StudyResults, better: str, worse: str, measure: str) -> dict[str, object] | None:
    """The grid of two axes, the last one across; of one axis a single row."""
    axes = dict(results.axes or {})
    found = _differences(results, better, worse, measure)
    if not found or len(axes) > 2:
        return None
    *rest, across = axes
    most = max(abs(d) for d, _, _ in found.values()) or 1.0
    rows = []
    for name in axes[rest[0]] if rest else ("",):
        cells = [found.get((name, column) if rest else (column,)) for column in axes[across]]
        rows.append(
            (
                name,
                [
                    c and {"difference": c[0], "low": c[1], "high": c[2], "strength": f"{abs(c[0]) / most:.2f}"}
                    for c in cells
                ],
            )
        )
    shares = _are_shares(results, measure)
    title = f"{better} minus {worse} on {measure}"
    return {
        "title": f"{title}, points" if shares else title,
        "share": shares,
        "row_axis": rest[0] if rest else "",
        "column_axis": across,
        "columns": axes[across],
        "rows": rows,
    }


def _scatters(results: StudyResults, better: str, worse: str, measure: str) -> Iterator[Markup]:
    """The gain at every point against what was there before training, a colour for each value of the first axis."""
    found = _differences(results, better, worse, measure) if _are_shares(results, measure) else {}
    for before, words in BEFORE.items():
        dots: dict[str, list[tuple[float, float, float, float]]] = {}
        for arm in results.arms.values():
            cell = tuple((arm.cell or {}).values())
            values = [u.measures[before].accuracy for u in arm.seeds if before in u.measures]
            if cell in found and values and None not in values:
                at = fmean(v for v in values if v is not None)
                dots.setdefault(cell[0] if len(cell) > 1 else "", []).append((at, *found[cell]))
        if dots:
            yield scatter_chart(f"{better} minus {worse} on {measure}", "points", words, dots)


def _levels(results: StudyResults) -> Iterator[Markup]:
    """Every measure of the table along the last axis, where that is one of numbers: a chart for each other value."""
    *rest, across = results.axes or {"": ()}
    if not across or not all(value.isdecimal() for value in (results.axes or {})[across]):
        return
    families = list(
        dict.fromkeys(a.family for a in results.arms.values() if a.cell and across in a.cell and a.rate is not None)
    )
    for on, words in (results.columns or COLUMNS).items():
        for value in (results.axes or {})[rest[0]] if len(rest) == 1 else ("",):
            series = [_along(results, family, value, across, on, i) for i, family in enumerate(families)]
            several = [s for s in series if s.points]
            for some in (several[i : i + LINES] for i in range(0, len(several), LINES)):
                title = words.removesuffix(", %")
                unit = f"{value}, mean over seeds" if value else "mean over seeds"
                if chart := line_chart(title, unit, some, shares=words.endswith("%"), by=across):
                    yield chart


def _along(results: StudyResults, family: str | None, value: str, across: str, on: str, place: int) -> Series:
    points, band = [], []
    for arm in results.arms.values():
        cell = arm.cell or {}
        if (
            arm.family != family
            or (value and value not in cell.values())
            or any(on not in u.measures for u in arm.seeds)
        ):
            continue
        numbers = by_seed(arm.seeds, on, [u.seed for u in arm.seeds])
        points.append((float(cell[across]), fmean(numbers)))
        band.append(_band(numbers, shares=is_share(arm.seeds, on)))
    return Series(family or "", points, place % LINES + 1, band=band)


def _band(numbers: Sequence[float], *, shares: bool) -> tuple[float, float]:
    """The interval that is drawn at a point; nothing where equal numbers have none."""
    apart = len(numbers) > 1 and max(numbers) > min(numbers)
    return seed_interval(numbers, shares=shares) if apart else (numbers[0], numbers[0])


def _curves(results: StudyResults) -> Iterator[Markup]:
    """Training reward of the arms, a chart a point of the grid, or one of all."""
    by: dict[str, dict[str, Series]] = {}
    for name, arm in results.arms.items():
        curves = [u.measures["reward"].curve for u in arm.seeds if "reward" in u.measures]
        rows = [c for c in curves if c]
        if not rows:
            continue
        at = "-".join((arm.cell or {}).values())
        place = len(by.setdefault(at, {}))
        points, band = [], []
        for step in rows[0]:
            numbers = [c[step] for c in rows if step in c]
            points.append((float(step), fmean(numbers)))
            band.append(_band(numbers, shares=True))
        by[at][name] = Series(arm.family or name, points, place % LINES + 1, band=band)
    for at, series in by.items():
        several = list(series.values())
        parts = [several[i : i + LINES] for i in range(0, len(several), LINES)]
        for number, some in enumerate(parts, 1):
            title = "Training reward" + (f", {number} of {len(parts)}" if len(parts) > 1 else "")
            if chart := line_chart(title, at, some, shares=True):
                yield chart
