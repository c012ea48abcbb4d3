"""Stored rollouts of stage 2 in the terminal: the teacher gap of every token, and the values it was credited with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from vold.errors import clean
from vold.report.answers import PROMPT
from vold.report.text import Shortened, cut, decimal, number
from vold.run.rollouts import load_rollouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vold.run.rollouts import StoredRollout
    from vold.types import Rollout

FIRST, LAST = 400, 200
"""Tokens shown of a long rollout, at its start and at its end; those between are counted."""
GAP_LIMIT = 3.0
"""Teacher gap, in nats, at which a token's colour is at its strongest."""
RUNS = 8
"""A row of values with more runs of equal ones than this is summed up by its range."""
LOWEST = -100.0
"""A log-prob below it, such as that of a token which a sampler would never have taken, is shown as this one."""


@dataclass(frozen=True)
class ShownRollout:
    """A stored rollout with what the terminal shows of it. `tokens` have their text and gap; `left_out` of them are
    missing after the first `FIRST`. `length`: of all."""

    stored: StoredRollout
    prompt: Shortened
    tokens: Sequence[tuple[str, float | None]]
    left_out: int
    length: int
    mean_gap: float | None
    spaced: bool
    figures: list[str]
    values: Mapping[str, str]


def gaps_of(r: Rollout) -> NDArray[np.float32] | None:
    """Student minus teacher log-prob (nats) of every token, NaN where there is no score; None without a teacher."""
    if r.teacher is None:
        return None
    return np.maximum(r.completion.logps, LOWEST) - np.maximum(r.teacher.logp, LOWEST)


def mean_gap(r: Rollout) -> float | None:
    """The mean over the tokens that have one."""
    gaps = gaps_of(r)
    known = None if gaps is None else gaps[np.isfinite(gaps)]
    return None if known is None or not len(known) else float(known.mean(dtype="float64"))


def pick_rollouts(file: Path, count: int) -> list[ShownRollout]:
    """`count` failed and `count` passed rollouts of a stored step: different problems first, and those the teacher has
    read. Raises DataError: the file cannot be read."""
    stored = sorted(load_rollouts(file), key=lambda s: s.rollout.teacher is None)
    chosen = []
    for passed in (False, True):
        part = [s for s in stored if (s.rollout.grade.score >= 1) == passed]
        first = {s.rollout.task_id: s for s in reversed(part)}
        chosen += sorted(part, key=lambda s: s is not first[s.rollout.task_id])[:count]
    return [show_rollout(s) for s in chosen]


def show_rollout(stored: StoredRollout) -> ShownRollout:
    """A stored rollout with its texts cleaned and cut."""
    r, texts = stored.rollout, stored.texts()
    found = gaps_of(r)
    gaps = [None] * len(texts) if found is None else [number(g) for g in found.tolist()]
    tokens = [(clean(t).replace("\n", "↵\n").replace("\t", "⇥") or "·", g) for t, g in zip(texts, gaps, strict=True)]
    left_out = max(0, len(tokens) - FIRST - LAST)
    return ShownRollout(
        stored=stored,
        prompt=cut(stored.question.prompt, PROMPT),
        tokens=tokens[:FIRST] + tokens[FIRST + left_out :],
        left_out=left_out,
        length=len(texts),
        mean_gap=mean_gap(r),
        spaced=not any(re.search(r"\s", t) for t in texts),
        figures=rollout_values(r),
        values={
            clean(name).replace("_", " "): in_words([number(v) for v in values.tolist()])
            for name, values in r.token_values.items()
            if np.isfinite(values).any()
        },
    )


def rollout_values(r: Rollout) -> list[str]:
    """Values of the whole rollout in words, such as `cut 12`; those that are no number are left out."""
    known = [(clean(k), number(v)) for k, v in r.rollout_values.items()]
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
