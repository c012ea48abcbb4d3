"""Values of a results document as text for the page: what is missing becomes a dash, and no text can play tricks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Return text that shows itself as it is: control characters and bidirectional controls become visible.

    Embeddings, overrides and isolates could show an answer in another order than it was graded in; half a surrogate
    pair cannot be written to a file at all.

    Example:
        >>> clean("a" + chr(0x202E) + "b")
        'a[U+202E]b'
    """
    text = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)
    return _TURNS.sub(lambda found: f"[U+{ord(found.group()):04X}]", text)


def tidy(value: Any) -> Any:
    """Return a JSON value whose every string, keys included, went through `clean`; other objects become strings."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(k)): tidy(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [tidy(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else clean(str(value))


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else.

    Example:
        >>> number(3), number(float("nan")), number("3")
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def at(value: Any, *keys: str) -> Any:
    """Return a nested value of mappings; None where the path breaks off."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def part(value: Any, *keys: str) -> Mapping[str, Any]:
    """Return a nested mapping; an empty one where there is none."""
    found = at(value, *keys)
    return found if isinstance(found, Mapping) else {}


def several(value: Any, *keys: str) -> list[Mapping[str, Any]]:
    """Return the mappings of a nested list; none where there is no list."""
    found = at(value, *keys)
    return [x for x in found if isinstance(x, Mapping)] if isinstance(found, list | tuple) else []


def decimal(value: Any, places: int = 1, scale: float = 100.0, *, sign: bool = False) -> str:
    """Return a number as it is shown, shares in percent unless `scale` says otherwise; a dash for what is no number.

    Example:
        >>> decimal(0.125), decimal(12.34, scale=1), decimal(0.05, sign=True)
        ('12.5', '12.3', '+5.0')
    """
    known = number(value)
    return DASH if known is None else f"{known * scale:{'+' if sign else ''}.{places}f}".replace("-", MINUS)


def words(value: Any) -> str:
    """Return any value as text: a dash for nothing, JSON for what has parts."""
    if value is None or value == "":
        return DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def natural(text: str) -> list[tuple[int, float, str]]:
    """Return a sorting key that puts level 2 before level 10.

    Example:
        >>> sorted(["10", "2", "b"], key=natural)
        ['2', '10', 'b']
    """
    pieces = re.findall(r"[0-9]{1,9}|[^0-9]+", text)
    return [(0, float(p), "") if p.isdecimal() else (1, 0.0, p.casefold()) for p in pieces]


def link(**chosen: str) -> str:
    """Return the address, within the page, of the samples that a filter lets through.

    Example:
        >>> link(set="mathvision", tag="level: 5")
        '#samples?set=mathvision&tag=level%3A+5'
    """
    return f"#samples?{urlencode(chosen)}"
