"""Stored values as text to show: what is missing is a dash, and no text of a model or a data set can play tricks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlencode

from vold.errors import clean

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
SHORT = 500
"""Characters shown of a value that should be a few words."""

Json: TypeAlias = Mapping[str, object]
"""An object of a stored document, of which nothing is taken for granted."""


@dataclass(frozen=True)
class Shortened:
    """A long text without its middle: `left_out` characters, written out, are missing between `head` and `tail`."""

    head: str
    left_out: str = ""
    tail: str = ""


def number(value: object) -> float | None:
    """Return a finite float, or None for anything else.

    Example:
        >>> number(3), number(float("nan")), number("3")
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def at(value: object, *keys: str) -> object:
    """Return a nested value of mappings; None where the path breaks off."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def part(value: object, *keys: str) -> Json:
    """Return a nested mapping; an empty one where there is none."""
    found = at(value, *keys)
    return found if isinstance(found, Mapping) else {}


def several(value: object, *keys: str) -> list[Json]:
    """Return the mappings of a nested list; none where there is no list."""
    return [x for x in listed(at(value, *keys)) if isinstance(x, Mapping)]


def listed(value: object) -> Sequence[object]:
    """Return a list as it is; an empty one for anything else."""
    return value if isinstance(value, list | tuple) else ()


def decimal(value: object, places: int = 3, *, sign: bool = False) -> str:
    """Return a number as it is shown; a dash for what is no number.

    Example:
        >>> decimal(12.34, 1), decimal(1200, 0), decimal(-0.5) == MINUS + "0.500"
        ('12.3', '1,200', True)
    """
    known = number(value)
    return DASH if known is None else f"{known:{'+' if sign else ''},.{places}f}".replace("-", MINUS)


def percent(share: object, *, sign: bool = False) -> str:
    """Return a share of 1 in percent, without the sign for it; a dash for what is no number. A difference, with its
    sign, has a second decimal where one would show 0.

    Example:
        >>> percent(0.125), percent(0.05, sign=True), percent(0.0004, sign=True)
        ('12.5', '+5.0', '+0.04')
    """
    known = number(share)
    small = sign and known is not None and round(100 * known, 1) == 0 != round(100 * known, 2)
    return decimal(None if known is None else 100 * known, 1 + small, sign=sign)


def p_value(value: object) -> str:
    """Return a p-value as text; a dash for none.

    Example:
        >>> p_value(0.0001), p_value(0.0444)
        ('<0.001', '0.044')
    """
    known = number(value)
    return "<0.001" if known is not None and known < 0.001 else decimal(known)


def words(value: object) -> str:
    """Return any value as text: a dash for nothing, JSON for what has parts."""
    if value is None or str(value) == "":  # what a template finds undefined is the empty text too
        return DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def spaced(name: str) -> str:
    """Return a stored name as words.

    Example:
        >>> spaced("worst_case")
        'worst case'
    """
    return name.replace("_", " ")


def short(value: object) -> str:
    """Return a value of few words as text: a dash for none, cut where it is too long after all."""
    text = clean(words(value))
    return text if len(text) <= SHORT else f"{text[:SHORT]} … ({len(text) - SHORT:,} more characters)"


def cut(text: object, limit: int) -> Shortened:
    """Return a text of which at most `limit` characters are left. The middle goes: an answer stands at the end."""
    whole = "" if text is None else clean(text)
    if len(whole) <= limit:
        return Shortened(whole)
    tail = limit // 3
    return Shortened(whole[: limit - tail], f"{len(whole) - limit:,}", whole[-tail:])


def natural(text: str) -> list[tuple[int, float, str]]:
    """Return a sorting key that puts level 2 before level 10.

    Example:
        >>> sorted(["10", "2", "b"], key=natural)
        ['2', '10', 'b']
    """
    pieces = re.findall(r"[0-9]{1,9}|[^0-9]+", text)
    return [(0, float(p), "") if p.isdecimal() else (1, 0.0, p.casefold()) for p in pieces]


def link(**chosen: str) -> str:
    """Return the address, within the page, of the answers that a filter lets through.

    Example:
        >>> link(set="mathvision", tag="level: 5")
        '#samples?set=mathvision&tag=level%3A+5'
    """
    return f"#samples?{urlencode({key: clean(value) for key, value in chosen.items()})}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a cell may hold any text.

    Example:
        >>> print(markdown_table(["a", "b"], [["1|2", "3"]]))
        | a | b |
        | --- | --- |
        | 1\\|2 | 3 |
    """
    cells = [[c.replace("|", "\\|").replace("\n", "<br>") for c in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells))
