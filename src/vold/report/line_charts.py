"""Line charts as inline SVG: coloured by the page's own style sheet, so they follow light and dark."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from vold.report.reading import MINUS, Row, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Point = tuple[float, float]
Rows = list[Row]

POINTS = 400
"""Most points of a line that are drawn; the extremes of every stretch are among them."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320.0, 176.0, 46.0, 8.0, 8.0, 34.0


@dataclass(frozen=True)
class Series:
    """One line: its label, its points by rising x, the colour number (1 to 4), and whether it stays in the background.

    Example:
        >>> Series("loss", [(0, 2.5), (1, 2.0)]).colour
        1
    """

    label: str
    points: Sequence[Point]
    colour: int = 1
    faint: bool = False


def points(rows: Rows, key: str, *, x: str = "step", where: Callable[[Row], Any] | None = None) -> list[Point]:
    """The finite values of one key of metric rows, by x, over the rows that `where` accepts."""
    pairs = [(number(r.get(x)), number(r.get(key))) for r in rows if where is None or where(r)]
    return sorted((a, b) for a, b in pairs if a is not None and b is not None)


def trailing_mean(line: Sequence[Point], window: int) -> list[Point]:
    """Each point's mean with up to `window - 1` points before it.

    Example:
        >>> trailing_mean([(0, 1.0), (1, 3.0), (2, 5.0)], 2)
        [(0, 1.0), (1, 2.0), (2, 4.0)]
    """
    out = []
    for i, (x, _) in enumerate(line):
        part = [y for _, y in line[max(0, i - window + 1) : i + 1]]
        out.append((x, math.fsum(part) / len(part)))
    return out


def thin(line: Sequence[Point], limit: int = POINTS) -> list[Point]:
    """At most `limit` points (and the last one): the lowest and the highest of every equal stretch."""
    if len(line) <= limit:
        return list(line)
    size = math.ceil(len(line) / (limit // 2))
    kept = []
    for start in range(0, len(line), size):
        part = line[start : start + size]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept if kept[-1] == line[-1] else [*kept, line[-1]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    Example:
        >>> ticks(0, 1), ticks(0, 300)
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 100.0, 200.0, 300.0])
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next((m * unit for m in (1, 2, 2.5, 5) if raw <= m * unit * 1.0001), 10 * unit)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis.

    Example:
        >>> short(0.25), short(12000)
        ('0.25', '12k')
    """
    text = f"{value / 1000:g}k" if abs(value) >= 10000 else f"{value:.4g}"
    return text.replace("-", MINUS)


def line_chart(
    title: str,
    unit: str,
    series: Iterable[Series],
    *,
    x: str = "step",
    span: tuple[float, float] | None = None,
    percent: bool = False,
    dots: bool = False,
) -> Markup | None:
    """A figure with its title, the unit of the vertical axis and a legend; None if there is nothing to draw.

    Args:
        title: what is shown.
        unit: what the vertical axis measures.
        series: the lines, the first one at the back.
        x: what the horizontal axis counts.
        span: lowest and highest value of the vertical axis; from the data if absent.
        percent: write values as percentages.
        dots: mark every point, for lines of few points.
    """
    lines = [Series(s.label, thin(s.points), s.colour, s.faint) for s in series if s.points]
    if not lines:
        return None
    xs = [p[0] for s in lines for p in s.points]
    left, right = min(xs), max(xs)
    right = right if right > left else left + 1
    low, high = span or _span([p[1] for s in lines for p in s.points])
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(p: Point) -> tuple[float, float]:
        y = min(max(p[1], low), high)
        return LEFT + (p[0] - left) / (right - left) * plot_w, TOP + (high - y) / (high - low) * plot_h

    parts = []
    for t in ticks(low, high):
        y = at((left, t))[1]
        text = f"{short(100 * t)}%" if percent else short(t)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for t in (t for t in ticks(left, right) if t == round(t)):
        px = at((t, low))[0]
        anchor = "end" if px > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 14:g}" text-anchor="{anchor}">{short(t)}</text>')
    parts.append(
        f'<text class="axis" x="{LEFT + plot_w / 2:g}" y="{HEIGHT - 4:g}" text-anchor="middle">{escape(x)}</text>'
    )
    for s in lines:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in map(at, s.points))
        parts.append(f'<polyline class="c{s.colour}{" faint" if s.faint else ""}" points="{path}"/>')
        if dots or len(s.points) == 1:
            parts += [
                f'<circle class="c{s.colour}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in map(at, s.points)
            ]
    data = [{"label": s.label, "points": [[px, float(f"{py:.5g}")] for px, py in s.points]} for s in lines]
    legend = " ".join(
        f'<span class="key c{s.colour}{" faint" if s.faint else ""}">{escape(s.label)}</span>'
        for s in (lines if len(lines) > 1 else [])
    )
    box = [left, right, LEFT, plot_w]
    return Markup(
        f'<figure class="chart" data-box="{escape(json.dumps(box))}" data-x="{escape(x)}"'
        f' data-percent="{int(percent)}" data-lines="{escape(json.dumps(data, allow_nan=False))}">'
        f'<figcaption><b>{escape(title)}</b> <span class="unit">{escape(unit)}</span>'
        f'<span class="legend">{legend}</span><output></output></figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(f"{title}, {unit}, by {x}")}">'
        f'{"".join(parts)}<line class="cursor" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}" visibility="hidden"/>'
        "</svg></figure>"
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low >= 0 and low < 0.6 * high:
        return 0.0, high * 1.04
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - pad, high + pad


def sft_charts(rows: Rows) -> list[Markup]:
    """Loss and gradient norm of the cold start."""
    loss = _smoothed("loss", points(rows, "loss"))
    made = [
        line_chart("Loss", "nats per token", loss),
        line_chart("Gradient norm", "before clipping", [Series("norm", points(rows, "grad_norm"))]),
    ]
    return [c for c in made if c is not None]


def distill_charts(rows: Rows, stored_gap: Sequence[Point] = ()) -> list[Markup]:
    """Stage 2 step by step. `stored_gap` (mean teacher gap of stored steps) is drawn if the metrics have none."""
    trained = "trained_tokens"
    gap = next(
        (p for k in ("teacher_gap", "gap") if (p := points(rows, k, where=lambda r: r.get("teacher_tokens")))), []
    )
    teacher = _smoothed("gap", gap) if gap else [Series("stored steps", stored_gap)]
    shares = [
        Series(k.replace("_", " "), _mean(points(rows, f"share_{k}")), c)
        for c, k in enumerate(("wrong", "unparsed", "truncated", "timed_out"), 1)
    ]
    times = [("sample", 1), ("teacher", 2), ("update", 3)]
    size = window(len(rows))
    over = f", mean of the last {size}" if size > 1 else ""
    made = [
        line_chart(
            "Reward", "mean score of a step's rollouts", _smoothed("reward", points(rows, "reward")), span=(0, 1)
        ),
        line_chart("Teacher gap", f"student {MINUS} teacher, nats per scored token", teacher, dots=not gap),
        line_chart(
            "Entropy", "student, nats per token", _smoothed("entropy", points(rows, "entropy", where=_has(trained)))
        ),
        line_chart(
            "Gradient norm", "before clipping", _smoothed("norm", points(rows, "grad_norm", where=_has(trained)))
        ),
        line_chart(
            "Groups of one outcome",
            f"share of prompts{over}",
            [
                Series("all pass", _mean(points(rows, "groups_all_pass")), 1),
                Series("all fail", _mean(points(rows, "groups_all_fail")), 2),
            ],
            span=(0, 1),
            percent=True,
        ),
        line_chart(
            "Tokens",
            "per step",
            [
                Series("in rollouts", points(rows, "rollout_tokens"), 1),
                Series("read by the teacher", points(rows, "teacher_tokens"), 2),
            ],
        ),
        line_chart(
            "Rollouts that fail",
            f"share of rollouts{over}",
            [s for s in shares if any(y for _, y in s.points)],
            percent=True,
        ),
        line_chart("Response length", "mean tokens", _smoothed("tokens", points(rows, "mean_tokens"))),
        line_chart(
            "Time", f"seconds per step{over}", [Series(k, _mean(points(rows, f"seconds_{k}")), c) for k, c in times]
        ),
    ]
    return [c for c in made if c is not None]


def _has(key: str) -> Callable[[Row], Any]:
    return lambda row: row.get(key)


def window(count: int) -> int:
    """Steps a smoothed line averages over: a twentieth of the run, at least 5 if there are 20."""
    return max(5, count // 20) if count >= 20 else 1


def _mean(line: list[Point]) -> list[Point]:
    return trailing_mean(line, window(len(line)))


def _smoothed(label: str, line: list[Point]) -> list[Series]:
    size = window(len(line))
    if size == 1:
        return [Series(label, line)]
    return [Series("each step", line, 1, faint=True), Series(f"mean of the last {size}", trailing_mean(line, size))]
