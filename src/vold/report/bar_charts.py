"""Bars with error bars, stacked bars and intervals as inline SVG, coloured by the page's own style sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from vold.report.text import DASH, decimal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTCOMES = ("right", "wrong", "unparsed", "truncated", "timed_out")
"""The five outcomes of `vold.graders.Outcome` in the order they are drawn and listed."""

FAILURES = ("truncated", "unparsed", "timed_out")
"""Answers that were not marked for what they say; their shares stand beside every accuracy."""

WIDTH, ROW, BAR, AXIS = 320.0, 36.0, 9.0, 18.0
LABEL = 27
"""Characters of a model's name that fit over its bar."""
STRIP = 150.0


@dataclass(frozen=True)
class Row:
    """One model in one figure: name, accuracy with the ends of its interval (shares), outcomes as shares, and links.

    Example:
        >>> Row("base", 0.25, 0.2, 0.3).outcomes
        {}
    """

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    outcomes: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def scale_top(values: Sequence[float]) -> float:
    """Return the end of an axis that starts at 0: the least of some round shares that no value exceeds.

    Example:
        >>> scale_top([0.31, 0.48]), scale_top([])
        (0.5, 1.0)
    """
    return next((t for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if max(values, default=1.0) <= t), 1.0)


def accuracy_chart(title: str, rows: Sequence[Row], top: float) -> Markup:
    """Return a figure of horizontal bars from 0 to the share `top`, with whiskers where an interval is known."""
    height = ROW * len(rows) + AXIS
    parts = []
    step = 0.2 if top > 0.5 else 0.1 if top > 0.2 else 0.05
    for k in range(round(top / step) + 1):
        x, end = WIDTH * k * step / top, k == round(top / step)
        anchor = "start" if k == 0 else "end" if end else "middle"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - AXIS:g}"/>')
        parts.append(
            f'<text class="small" x="{x:.1f}" y="{height - 4:g}" text-anchor="{anchor}">{100 * k * step:g}</text>'
        )
    for i, row in enumerate(rows):
        y = i * ROW
        parts.append(_name(row.label, y))
        parts.append(f'<text class="value" x="{WIDTH:g}" y="{y + 13:g}" text-anchor="end">{decimal(row.value)}</text>')
        if row.outcomes:
            lost = f"{decimal(sum(row.outcomes.get(o, 0.0) for o in FAILURES))}% not marked"
            parts.append(f'<text class="small" x="{WIDTH - 38:g}" y="{y + 13:g}" text-anchor="end">{lost}</text>')
        if row.value is None:
            continue
        middle = y + 19 + BAR / 2
        length = WIDTH * min(max(row.value, 0.0), top) / top
        parts.append(f'<rect class="bar c{colour(i)}" x="0" y="{y + 19:g}" width="{length:.1f}" height="{BAR:g}"/>')
        if row.low is not None and row.high is not None:
            a, b = (WIDTH * min(max(v, 0.0), top) / top for v in (row.low, row.high))
            parts.append(f'<path class="whisker" d="{_whisker(a, b, middle, 4)}"/>')
    words = ", ".join(f"{r.label} {decimal(r.value)}" for r in rows)
    return _figure(title, f"{title}: accuracy in percent: {words}", height, parts)


def outcome_chart(title: str, rows: Sequence[Row]) -> Markup:
    """Return a figure of stacked bars, one a model, that splits all answers by outcome; each piece may be a link."""
    height = ROW * len(rows)
    parts = []
    for i, row in enumerate(rows):
        y, x = i * ROW, 0.0
        parts.append(_name(row.label, y))
        told = ", ".join(f"{o.replace('_', ' ')} {decimal(row.outcomes[o])}%" for o in OUTCOMES if row.outcomes.get(o))
        for name in OUTCOMES:
            share = row.outcomes.get(name, 0.0)
            if share <= 0:
                continue
            width = WIDTH * share
            about = f"{row.label}: {name.replace('_', ' ')} {decimal(share)}%"
            piece = (
                f'<rect class="o-{name}" x="{x:.1f}" y="{y + 18:g}" width="{max(width - 1, 0.8):.1f}" height="14">'
                f"<title>{escape(about)}</title></rect>"
            )
            href = row.links.get(name)
            parts.append(f'<a href="{escape(href)}" aria-label="{escape(about)}">{piece}</a>' if href else piece)
            x += width
        if not told:
            parts.append(f'<text x="0" y="{y + 29:g}">{DASH}</text>')
    return _figure(title, f"{title}: answers by outcome", height, parts)


def interval_strip(
    difference: float | None,
    low: float | None = None,
    high: float | None = None,
    unseen: float | None = None,
    *,
    reach: float,
) -> Markup:
    """Return a line drawing of a difference and its interval about 0, from -reach to +reach.

    The band behind it is what the number of problems cannot show: differences below `unseen`.
    """
    if difference is None or reach <= 0:
        return Markup("")

    def x(value: float) -> float:
        return STRIP / 2 * (1 + min(max(value / reach, -1.0), 1.0))

    parts = []
    if unseen is not None:
        parts.append(
            f'<rect class="band" x="{x(-unseen):.1f}" y="1" width="{x(unseen) - x(-unseen):.1f}" height="16"/>'
        )
    parts.append(f'<line class="zero" x1="{STRIP / 2:g}" x2="{STRIP / 2:g}" y1="0" y2="18"/>')
    if low is not None and high is not None:
        parts.append(f'<path class="whisker" d="{_whisker(x(low), x(high), 9, 3.5)}"/>')
    parts.append(f'<circle cx="{x(difference):.1f}" cy="9" r="3.2"/>')
    return Markup(f'<svg class="strip" viewBox="0 0 {STRIP:g} 18" aria-hidden="true">{"".join(parts)}</svg>')


def colour(index: int) -> int:
    """Return the colour number of the model at an index: 0, grey, is the baseline's; the others take turns."""
    return 0 if index == 0 else (index - 1) % 4 + 1


def _name(label: str, y: float) -> str:
    short = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
    return f'<text class="name" x="0" y="{y + 13:g}">{escape(short)}<title>{escape(label)}</title></text>'


def _whisker(a: float, b: float, y: float, cap: float) -> str:
    ends = "".join(f"M{x:.1f} {y - cap:g}V{y + cap:g}" for x in (a, b))
    return f"M{a:.1f} {y:g}H{b:.1f}{ends}"


def _figure(title: str, about: str, height: float, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<figure class="chart"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="group" aria-label="{escape(about)}">'
        f"{''.join(parts)}</svg></figure>"
    )
