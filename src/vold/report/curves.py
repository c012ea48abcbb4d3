"""The curves of a run's training, from its metric rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.report.charts import Point, Series, line_chart
from vold.report.text import MINUS, Json, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup


@dataclass(frozen=True)
class Curve:
    """A chart of metrics, each with its label. One metric is drawn each step and smoothed, several are smoothed alone.

    A row is drawn where its key `where` is there and not 0. Of `rare` lines those that are 0 throughout are left out.
    """

    title: str
    unit: str
    metrics: Mapping[str, str]
    where: str = ""
    span: tuple[float, float] | None = None
    shares: bool = False
    rare: bool = False


GAP = f"student {MINUS} teacher, nats per scored token"
FAILED = {f"share_{o}": o.replace("_", " ") for o in ("wrong", "unparsed", "truncated", "timed_out")}
GROUPS = {"groups_all_pass": "all pass", "groups_all_fail": "all fail"}
TOKENS = {"rollout_tokens": "in rollouts", "teacher_tokens": "read by the teacher"}
SECONDS = {"seconds_sample": "sample", "seconds_teacher": "teacher", "seconds_update": "update"}
SFT = (Curve("Loss", "nats per token", {"loss": ""}), Curve("Gradient norm", "before clipping", {"grad_norm": ""}))
DISTILL = (
    Curve("Reward", "mean score of a step's rollouts", {"reward": ""}, span=(0, 1)),
    Curve("Teacher gap", GAP, {"teacher_gap": ""}, where="teacher_tokens"),
    Curve("Entropy", "student, nats per token", {"entropy": ""}, where="trained_tokens"),
    Curve("Gradient norm", "before clipping", {"grad_norm": ""}, where="trained_tokens"),
    Curve("Groups of one outcome", "share of prompts", GROUPS, span=(0, 1), shares=True),
    Curve("Tokens", "per step", TOKENS),
    Curve("Rollouts that fail", "share of rollouts", FAILED, shares=True, rare=True),
    Curve("Response length", "mean tokens", {"mean_tokens": ""}),
    Curve("Time", "seconds per step", SECONDS),
)


def training_charts(curves: Sequence[Curve], rows: Sequence[Json]) -> list[Markup]:
    """Charts of a stage's metric rows, as far as these have values."""
    return [chart for curve in curves if (chart := _chart(curve, rows))]


def _chart(curve: Curve, rows: Sequence[Json]) -> Markup | None:
    lines = {label: points(rows, metric, curve.where) for metric, label in curve.metrics.items()}
    size = window(max(map(len, lines.values())))
    smooth = {label: trailing_mean(line, size) for label, line in lines.items()}
    series = [Series(label, line, i) for i, (label, line) in enumerate(smooth.items(), 1)]
    series = [s for s in series if not curve.rare or any(y for _, y in s.points)]
    unit = curve.unit
    if size > 1 and len(lines) == 1:
        each, mean = lines[""], smooth[""]
        series = [Series("each step", each, faint=True), Series(f"mean of the last {size}", mean)]
    elif size > 1:
        unit += f", mean of the last {size}"
    return line_chart(curve.title, unit, series, span=curve.span, shares=curve.shares)


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
