"""The curves of a run's training, from its metric rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vold.report.charts import Point, Series, line_chart
from vold.report.text import MINUS, Json, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup


@dataclass(frozen=True)
class Curve:
    """A chart: one metric, drawn each step and smoothed, or several by label, smoothed alone."""

    title: str
    unit: str
    metric: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Label by metric."""
    where: str = ""
    """A key that a row must have, and not 0, to be drawn."""
    span: tuple[float, float] | None = None
    shares: bool = False
    rare: bool = False
    """Lines that are 0 throughout are left out."""


GAP = f"student {MINUS} teacher, nats per scored token"
SFT = (Curve("Loss", "nats per token", "loss"), Curve("Gradient norm", "before clipping", "grad_norm"))
DISTILL = (
    Curve("Reward", "mean score of a step's rollouts", "reward", span=(0, 1)),
    Curve("Teacher gap", GAP, "teacher_gap", where="teacher_tokens"),
    Curve("Entropy", "student, nats per token", "entropy", where="trained_tokens"),
    Curve("Gradient norm", "before clipping", "grad_norm", where="trained_tokens"),
    Curve(
        "Groups of one outcome",
        "share of prompts",
        metrics={"groups_all_pass": "all pass", "groups_all_fail": "all fail"},
        span=(0, 1),
        shares=True,
    ),
    Curve("Tokens", "per step", metrics={"rollout_tokens": "in rollouts", "teacher_tokens": "read by the teacher"}),
    Curve(
        "Rollouts that fail",
        "share of rollouts",
        metrics={f"share_{o}": o.replace("_", " ") for o in ("wrong", "unparsed", "truncated", "timed_out")},
        shares=True,
        rare=True,
    ),
    Curve("Response length", "mean tokens", "mean_tokens"),
    Curve("Time", "seconds per step", metrics={f"seconds_{p}": p for p in ("sample", "teacher", "update")}),
)


def training_charts(curves: Sequence[Curve], rows: Sequence[Json]) -> list[Markup]:
    """Charts of a stage's metric rows, as far as these have values."""
    return [chart for curve in curves if (chart := _chart(curve, rows))]


def _chart(curve: Curve, rows: Sequence[Json]) -> Markup | None:
    if curve.metric:
        line = points(rows, curve.metric, curve.where)
        size = window(len(line))
        smooth = Series(f"mean of the last {size}" if size > 1 else "", trailing_mean(line, size))
        series = [Series("each step", line, faint=True), smooth] if size > 1 else [smooth]
        return line_chart(curve.title, curve.unit, series, span=curve.span, shares=curve.shares)
    size = window(len(rows))
    lines = [(label, trailing_mean(points(rows, key), size)) for key, label in curve.metrics.items()]
    series = [Series(label, line, i) for i, (label, line) in enumerate(lines, 1)]
    shown = [s for s in series if not curve.rare or any(y for _, y in s.points)]
    unit = curve.unit + (f", mean of the last {size}" if size > 1 else "")
    return line_chart(curve.title, unit, shown, span=curve.span, shares=curve.shares)


def points(rows: Sequence[Json], key: str, where: str = "") -> list[Point]:
    """The finite values of one key of metric rows, by step, over the rows where another key is not 0."""
    pairs = [(number(r.get("step")), number(r.get(key))) for r in rows if not where or r.get(where)]
    return sorted((a, b) for a, b in pairs if a is not None and b is not None)


def window(count: int) -> int:
    """Steps a smoothed line averages over: a twentieth of the run, at least 5 if there are 20."""
    return max(5, count // 20) if count >= 20 else 1


def trailing_mean(line: Sequence[Point], window: int) -> list[Point]:
    """Each point's mean with up to `window - 1` points before it.

    Example:
        >>> trailing_mean([(0, 1.0), (1, 3.0), (2, 5.0)], 2)
        [(0, 1.0), (1, 2.0), (2, 4.0)]
    """
    return [
        (x, math.fsum(y for _, y in line[max(0, i - window + 1) : i + 1]) / min(i + 1, window))
        for i, (x, _) in enumerate(line)
    ]
