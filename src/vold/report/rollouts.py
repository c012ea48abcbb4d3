"""Stored rollouts of stage 2, token by token: the teacher gap, and the named values each was credited with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from vold.errors import clean
from vold.report.answers import PROMPT
from vold.report.text import Json, Shortened, cut, decimal, listed, number, part
from vold.run.rollouts import load_rollouts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROLLOUTS = 3
"""Passed, and as many failed, rollouts shown of the first and of the last stored step."""
TOKENS = 600
"""Tokens shown of a rollout; the rest is counted."""
GAP_LIMIT = 3.0
"""Teacher gap, in nats, at which a token's colour is at its strongest."""
RUNS = 8
"""A row of values with more runs of equal ones than this is summed up by its range."""


@dataclass(frozen=True)
class Token:
    """A token as it is shown: its number, if it has one, colours it, with a strength in [0, 1]. `side` says which: that
    of a teacher gap `over` or `under` 0, `plain` for none, or `value` for any other number."""

    text: str
    value: float | None
    side: str
    strength: float
    words: str


@dataclass(frozen=True)
class Values:
    """One named value at every token, and the same in words."""

    name: str
    words: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class ShownRollout:
    """A stored rollout with what the page and the terminal show of it. `length`: of all its tokens."""

    row: Json
    prompt: Shortened
    passed: bool
    length: int
    mean_gap: float | None
    tokens: list[Token]
    spaced: bool
    figures: list[str]
    values: list[Values]


def gaps_of(row: Json) -> list[float | None]:
    """Student minus teacher log-prob (nats) of every token; None where there is no score, nothing without a teacher."""
    pairs = zip(_numbers(row, "logp"), _numbers(row, "teacher_logp"), strict=False)
    return [None if a is None or b is None else a - b for a, b in pairs]


def _numbers(row: Json, key: str) -> list[float | None]:
    return [number(v) for v in listed(row.get(key))]


def pick_rollouts(file: Path, count: int) -> list[ShownRollout]:
    """`count` failed and `count` passed rollouts of a stored step: different problems first, and those the teacher has
    read. Raises DataError: the file cannot be read."""
    stored = sorted(load_rollouts(file), key=lambda s: s.rollout.teacher is None)
    chosen = []
    for passed in (False, True):
        part = [s for s in stored if (s.rollout.grade.score >= 1) == passed]
        first = {s.rollout.task_id: s for s in reversed(part)}
        chosen += sorted(part, key=lambda s: s is not first[s.rollout.task_id])[:count]
    return [show_rollout(s.row()) for s in chosen]


def show_rollout(row: Json) -> ShownRollout:
    """A stored rollout with its texts cleaned and cut."""
    gaps = gaps_of(row)
    known = [g for g in gaps if g is not None]
    texts = listed(row.get("tokens"))
    tokens = _tokens(row, texts[:TOKENS], gaps)
    return ShownRollout(
        row=row,
        prompt=cut(row.get("prompt"), PROMPT),
        passed=(number(row.get("score")) or 0.0) >= 1.0,
        length=len(texts),
        mean_gap=sum(known) / len(known) if known else None,
        tokens=tokens,
        spaced=not any(re.search(r"\s", str(t)) for t in texts),
        figures=rollout_values(row),
        values=token_values(row, [t.text for t in tokens]),
    )


def _tokens(row: Json, texts: Sequence[object], gaps: list[float | None]) -> list[Token]:
    told = {name: _numbers(row, key) for name, key in (("student", "logp"), ("teacher", "teacher_logp"))}
    told |= {"gap": gaps, "advantage": _numbers(row, "advantage")}
    told = {name: values for name, values in told.items() if values}
    shown = []
    for text, token, *values in zip(texts, listed(row.get("ids")), *told.values(), strict=False):
        at = dict(zip(told, values, strict=True))
        gap = number(at.get("gap"))
        words = [f"{name} {decimal(v, sign=True)}{' nats' * (name == 'gap')}" for name, v in at.items()]
        written = clean(text).replace("\n", "↵\n").replace("\t", "⇥") or "·"
        side = "plain" if gap is None else "over" if gap > 0 else "under"
        strength = min(1.0, abs(gap or 0.0) / GAP_LIMIT)
        shown.append(Token(written, gap, side, strength, "  ".join([f"id {token}", *words])))
    return shown


def rollout_values(row: Json) -> list[str]:
    """Values of the whole rollout in words.

    Example:
        >>> rollout_values({"rollout_values": {"cut": 12.0, "shift": 0.25, "odd": None}})
        ['cut 12', 'shift 0.250']
    """
    known = [(clean(k), number(v)) for k, v in part(row, "rollout_values").items()]
    return [f"{k.replace('_', ' ')} {decimal(v, 0 if v == int(v) else 3)}" for k, v in known if v is not None]


def token_values(row: Json, texts: Sequence[str]) -> list[Values]:
    """Every named value with its tokens, coloured from the lowest to the highest; names without numbers left out."""
    out = []
    for key, stored in part(row, "token_values").items():
        name, values = clean(key), [number(v) for v in listed(stored)]
        known = [v for v in values if v is not None]
        if not known:
            continue
        low, high = min(known), max(known)
        tokens = []
        for text, value in zip(texts, values, strict=False):
            share = 0.0 if value is None else (value - low) / (high - low) if high > low else float(high != 0)
            tokens.append(Token(text, value, "value", share, f"{name} {decimal(value)}"))
        out.append(Values(name.replace("_", " "), in_words(values), tuple(tokens)))
    return out


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
