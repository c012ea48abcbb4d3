"""The named values a rollout was credited with: masks, weights, cuts, shifts. What the objective stored is shown."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from vold.report.reading import Row, at, decimal, number

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS = 8
"""A row of values with more runs of equal ones than this is summed up by its range."""


def token_values(row: Row) -> dict[str, list[float | None]]:
    """Values a token by name; None where one is no number. Names without any number are left out."""
    named = at(row, "token_values")
    found = {
        str(name): [number(v) for v in values]
        for name, values in (named.items() if isinstance(named, dict) else ())
        if isinstance(values, list)
    }
    return {name: values for name, values in found.items() if any(v is not None for v in values)}


def rollout_values(row: Row) -> list[str]:
    """Values of the whole rollout in words.

    Example:
        >>> rollout_values({"rollout_values": {"cut": 12.0, "shift": 0.25, "odd": None}})
        ['cut 12', 'shift 0.250']
    """
    named = at(row, "rollout_values")
    known = [(str(k), number(v)) for k, v in (named.items() if isinstance(named, dict) else ())]
    return [f"{k.replace('_', ' ')} {decimal(v, 0 if v == int(v) else 3)}" for k, v in known if v is not None]


def in_words(values: Sequence[float | None]) -> str:
    """A row of values, run by run, or its range where there are many runs.

    Example:
        >>> in_words([1.0, 1.0, 1.0, 0.5]), in_words([float(i) for i in range(20)])
        ('1.00 x 3, 0.50 x 1', '0.00 to 19.00')
    """
    runs = [(value, len(list(same))) for value, same in groupby(values)]
    if len(runs) <= RUNS:
        return ", ".join(f"{decimal(value, 2)} x {length}" for value, length in runs)
    known = [v for v in values if v is not None]
    return f"{decimal(min(known), 2)} to {decimal(max(known), 2)}"


def coloured(row: Row, texts: Sequence[str]) -> list[Row]:
    """For every name: the tokens with their value in words, and how strong its colour is between lowest and highest."""
    out = []
    for name, values in token_values(row).items():
        known = [v for v in values if v is not None]
        low, high = min(known), max(known)
        cells = []
        for text, value in zip(texts, values, strict=False):
            share = 0.0 if value is None else (value - low) / (high - low) if high > low else float(high != 0)
            cells.append({"text": text, "strength": f"{share:.2f}", "words": f"{name} {decimal(value, 3)}"})
        out.append({"name": name.replace("_", " "), "words": in_words(values), "tokens": cells})
    return out
