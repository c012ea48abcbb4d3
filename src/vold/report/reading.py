"""Reading what a run wrote, without ever failing on it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from vold.run.files import read_jsonl

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: Any) -> float | None:
    """A finite float, or None for anything else.

    Example:
        >>> number(3), number(float("nan")), number("3")
        (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rows(file: Path) -> list[Row]:
    """The whole rows of a JSON-lines file; none if it is absent or no text."""
    try:
        return [r for r in read_jsonl(file) if isinstance(r, dict)]
    except (OSError, UnicodeDecodeError):
        return []


def one(file: Path) -> Row:
    """The object in a JSON file; an empty one if it is absent, cut short or something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def at(value: Any, *keys: str) -> Any:
    """A nested value of dictionaries; None where the path breaks off."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def decimal(value: Any, places: int = 3, scale: float = 1.0, sign: bool = False) -> str:
    """A number as it is shown; an en dash for what is no number."""
    clean = number(value)
    return DASH if clean is None else f"{clean * scale:{'+' if sign else ''}.{places}f}".replace("-", MINUS)
