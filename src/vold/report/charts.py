"""Charts as inline SVG: lines, bars with error bars, stacked bars and intervals.

Everything is coloured by the page's own style sheet, so charts follow light and dark. All text is escaped here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from markupsafe import Markup, escape

from vold.errors import clean
from vold.graders.outcome import Outcome
from vold.report.text import DASH, MINUS, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Point = tuple[float, float]

OUTCOMES: tuple[str, ...] = get_args(Outcome)
"""In the order they are drawn and listed."""
FAILURES: tuple[str, ...] = ("truncated", "unparsed", "timed_out")
"""Answers that were not marked for what they say; their shares stand beside every accuracy."""

POINTS = 400
"""Most points of a line that are drawn; the extremes of every stretch are among them."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 176, 46, 8, 8, 34
ROW, AXIS, STRIP = 36, 18, 150
COLOURS = 4
"""That lines and bars take in turns."""
STROKES = ("", " dashed", " dotted")
"""Classes of the lines of the first turn, of the second and of the third."""
LABEL = 23
"""Characters of a model's name that fit over its bar."""


@dataclass(frozen=True)
class Series:
    """One line: label, points by rising x, number, whether it stays in the background, and by point the ends of an
    interval that is drawn as a band. The number is that of the colour from 1 to 4; the four after them are dashed, and
    the next four dotted."""

    label: str
    points: Sequence[Point]
    number: int = 1
    faint: bool = False
    band: Sequence[Point] = ()

    @property
    def look(self) -> str:
        """The classes of its colour and of how it is drawn."""
        turn, place = divmod(self.number - 1, COLOURS)
        return f"c{place + 1}{STROKES[turn % len(STROKES)]}{' faint' * self.faint}"


@dataclass(frozen=True)
class Bar:
    """One model on one set: name, a score with the ends of its interval (shares), outcomes as shares, links, colour."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    outcomes: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    colour: int = 0


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


def axis_number(value: float, step: float = 0.0) -> str:
    """A number for an axis, with as many digits as tell it from its neighbours, `step` away.

    Example:
        >>> axis_number(0.25), axis_number(12000), axis_number(11.9182, 0.0005)
        ('0.25', '12k', '11.9182')
    """
    digits = 4 if step <= 0 or value == 0 else 2 + math.ceil(math.log10(max(abs(value) / step, 100)))
    text = f"{value / 1000:.{digits}g}k" if abs(value) >= 10000 else f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def scale_top(values: Sequence[float]) -> float:
    """Return the end of an axis that starts at 0: the least of some round shares that no value exceeds.

    Example:
        >>> scale_top([0.31, 0.48]), scale_top([])
        (0.5, 1.0)
    """
    return next((t for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if max(values, default=1.0) <= t), 1.0)


def colour(index: int) -> int:
    """Return the colour number of the model at an index: 0, grey, is the baseline's; the others take turns."""
    return 0 if index == 0 else (index - 1) % COLOURS + 1


def line_chart(
    title: str,
    unit: str,
    series: Iterable[Series],
    *,
    span: Point | None = None,
    shares: bool = False,
    by: str = "step",
) -> Markup | None:
    """A figure of lines by step, or `by` something else, with a legend and a read-out under the pointer; None if there
    is nothing to draw.

    The first line is at the back. `span` is the lowest and highest value of the vertical axis, which follows the data
    where it is absent; `shares` of 1 are written in percent.
    """
    lines = [s if s.band else replace(s, points=thin(s.points)) for s in series if s.points]
    if not lines:
        return None
    xs, ys = ([p[i] for s in lines for p in s.points] for i in (0, 1))
    ys += [end for s in lines for ends in s.band for end in ends]
    left, right = min(xs), max(xs)
    right = right if right > left else left + 1
    low, high = span or _span(ys)
    if shares:
        low, high = max(low, 0.0), min(max(high, 0.01), 1.0)
    width, bottom = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM

    def px(x: float) -> float:
        return LEFT + (x - left) / (right - left) * width

    def py(y: float) -> float:
        return TOP + (high - min(max(y, low), high)) / (high - low) * (bottom - TOP)

    parts = []
    marks, unit_of = ticks(low, high), 100 if shares else 1
    step = unit_of * (marks[1] - marks[0]) if len(marks) > 1 else 0.0
    for t in marks:
        label = axis_number(unit_of * t, step) + "%" * shares
        parts.append(_tag("line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=py(t), y2=py(t)))
        parts.append(_text(label, LEFT - 6, py(t) + 4, anchor="end"))
    for t in (t for t in ticks(left, right) if t == round(t)):
        anchor = "end" if px(t) > WIDTH - RIGHT - 12 else "middle"
        parts.append(_text(axis_number(t), px(t), bottom + 14, anchor=anchor))
    parts.append(_text(by, LEFT + width / 2, HEIGHT - 4, anchor="middle"))
    for s in (s for s in lines if s.band):
        rim = [(x, low) for (x, _), (low, _) in zip(s.points, s.band, strict=True)]
        rim += [(x, high) for (x, _), (_, high) in zip(s.points[::-1], s.band[::-1], strict=True)]
        parts.append(_tag("polygon", f"area {s.look}", points=" ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in rim)))
    for s in lines:
        at = [(px(x), py(y)) for x, y in s.points]
        parts.append(_tag("polyline", s.look, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in at)))
        if len(at) == 1:
            parts.append(_tag("circle", s.look, cx=at[0][0], cy=at[0][1], r=3))
    parts.append(_tag("line", "cursor", y1=TOP, y2=bottom, visibility="hidden"))
    keys = [_tag("span", f"key line {s.look}", s.label) for s in lines if s.label]
    head = _tag("b", "", title) + " " + _tag("span", "unit", unit) + _tag("span", "legend", Markup(" ").join(keys))
    data = json.dumps([{"label": s.label, "points": [[x, float(f"{y:.5g}")] for x, y in s.points]} for s in lines])
    box = json.dumps([left, right, LEFT, width])
    more = {"data-box": box, "data-percent": str(int(shares)), "data-lines": data}
    return _figure(head + _tag("output"), f"{title}, {unit}, by {by}", HEIGHT, parts, **more)


def scatter_chart(
    title: str, unit: str, by: str, dots: Mapping[str, Sequence[tuple[float, float, float, float]]]
) -> Markup:
    """Return a figure of dots (x, y and the ends of y's interval) against an axis of shares of 1, a colour a label."""
    every = [dot for some in dots.values() for dot in some]
    low, high = _span([0.0, *(v for dot in every for v in dot[1:])])
    width, bottom = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM

    def py(y: float) -> float:
        return TOP + (high - y) / (high - low) * (bottom - TOP)

    parts = []
    for t in ticks(low, high):
        parts.append(_tag("line", "zero" if t == 0 else "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=py(t), y2=py(t)))
        parts.append(_text(axis_number(100 * t), LEFT - 6, py(t) + 4, anchor="end"))
    parts += [_text(f"{t:.0%}", LEFT + t * width, bottom + 14, anchor="middle") for t in (0.0, 0.5, 1.0)]
    parts.append(_text(by, LEFT + width / 2, HEIGHT - 4, anchor="middle"))
    for i, some in enumerate(dots.values()):
        for x, y, least, most in some:
            at = LEFT + x * width
            parts.append(_tag("line", f"error c{i % 4 + 1}", x1=at, x2=at, y1=py(least), y2=py(most)))
            parts.append(_tag("circle", f"c{i % 4 + 1}", cx=at, cy=py(y), r=3))
    keys = [_tag("span", f"key c{i % 4 + 1}", label) for i, label in enumerate(dots)]
    head = _tag("b", "", title) + " " + _tag("span", "unit", unit) + _tag("span", "legend", Markup(" ").join(keys))
    return _figure(head, f"{title}, {unit}, by {by}", HEIGHT, parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low >= 0 and low < 0.6 * high:
        return 0.0, high * 1.04
    # A line that is flat but for its last digits stays flat, and its axis readable.
    pad = max(0.06 * (high - low), 2e-4 * max(abs(low), abs(high))) if high > low else max(abs(high) * 0.1, 1e-6)
    return (max(low - pad, 0.0) if low >= 0 else low - pad), high + pad


def score_chart(title: str, bars: Sequence[Bar], top: float) -> Markup:
    """Return a figure of horizontal bars from 0 to the share `top`, with whiskers where an interval is known."""

    def x(share: float) -> float:
        return WIDTH * min(max(share, 0.0), top) / top

    height = ROW * len(bars) + AXIS
    parts = []
    for t in ticks(0, top, 5):
        anchor = "start" if t == 0 else "end" if x(t) > WIDTH - 12 else "middle"
        parts.append(_tag("line", "grid", x1=x(t), x2=x(t), y1=0, y2=height - AXIS))
        parts.append(_text(axis_number(100 * t), x(t), height - 4, "small", anchor))
    for i, bar in enumerate(bars):
        y = i * ROW
        value, lost = percent(bar.value), sum(bar.outcomes.get(o, 0.0) for o in FAILURES)
        parts += [_name(bar.label, y), _text(value, WIDTH, y + 13, "value", "end")]
        if lost:
            parts.append(_text(f"{percent(lost)}% not marked", WIDTH - 8 * len(value) - 4, y + 13, "small", "end"))
        if bar.value is not None:
            parts.append(_tag("rect", f"bar c{bar.colour}", x=0, y=y + 19, width=x(bar.value), height=9))
        if bar.value is not None and bar.low is not None and bar.high is not None:
            parts.append(_whisker(x(bar.low), x(bar.high), y + 23.5, 4))
    values = ", ".join(f"{b.label} {percent(b.value)}" for b in bars)
    return _figure(_tag("b", "", title), f"{title}: {values}", height, parts)


def outcome_chart(title: str, bars: Sequence[Bar]) -> Markup:
    """Return a figure of stacked bars, one a model, that splits all answers by outcome; each piece may be a link."""
    parts = []
    for i, bar in enumerate(bars):
        y, x = i * ROW, 0.0
        parts.append(_name(bar.label, y))
        there = [(o, share) for o in OUTCOMES if (share := bar.outcomes.get(o, 0.0)) > 0]
        for name, share in there:
            about = f"{bar.label}: {name.replace('_', ' ')} {percent(share)}%"
            width = max(WIDTH * share - 1, 0.8)
            piece = _tag("rect", f"o-{name}", _tag("title", "", about), x=x, y=y + 18, width=width, height=14)
            href = bar.links.get(name)
            parts.append(_tag("a", "", piece, href=href, **{"aria-label": about}) if href else piece)
            x += WIDTH * share
        if not there:
            parts.append(_text(DASH, 0, y + 29))
    return _figure(_tag("b", "", title), f"{title}: answers by outcome", ROW * len(bars), parts)


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
        parts.append(_tag("rect", "band", x=x(-unseen), y=1, width=x(unseen) - x(-unseen), height=16))
    parts.append(_tag("line", "zero", x1=x(0), x2=x(0), y1=0, y2=18))
    if low is not None and high is not None:
        parts.append(_whisker(x(low), x(high), 9, 3.5))
    parts.append(_tag("circle", "", cx=x(difference), cy=9, r=3.2))
    return _tag("svg", "strip", Markup("").join(parts), viewBox=f"0 0 {STRIP} 18", **{"aria-hidden": "true"})


def _tag(tag: str, name: str = "", inner: str = "", **attributes: str | float | None) -> Markup:
    """An element with its class and attributes, all of it escaped unless it is markup already; floats get one place."""
    pairs = {"class": name or None, **attributes}
    told = [(k, f"{v:.1f}" if isinstance(v, float) else v) for k, v in pairs.items() if v is not None]
    start = Markup("").join(Markup(' {}="{}"').format(k, clean(v)) for k, v in told)
    inside = inner if isinstance(inner, Markup) else escape(clean(inner))
    return Markup("<{}{}>{}</{}>").format(tag, start, inside, tag)


def _text(text: str, x: float, y: float, name: str = "", anchor: str | None = None) -> Markup:
    return _tag("text", name, text, x=x, y=y, **{"text-anchor": anchor})


def _name(label: str, y: float) -> Markup:
    label = clean(label)
    tail = LABEL // 2  # names of one family differ at the end
    text = label if len(label) <= LABEL else f"{label[: LABEL - tail - 1]}…{label[-tail:]}"
    return _tag("text", "name", escape(text) + _tag("title", "", label), x=0, y=y + 13)


def _whisker(a: float, b: float, y: float, cap: float) -> Markup:
    ends = "".join(f"M{x:.1f} {y - cap:g}V{y + cap:g}" for x in (a, b))
    return _tag("path", "whisker", d=f"M{a:.1f} {y:g}H{b:.1f}{ends}")


def _figure(head: Markup, about: str, height: float, parts: Sequence[Markup], **more: str) -> Markup:
    box = {"viewBox": f"0 0 {WIDTH} {height}", "role": "group", "aria-label": about}
    svg = _tag("svg", "", Markup("").join(parts), **box)
    return _tag("figure", "chart", _tag("figcaption", "", head) + svg, **more)
