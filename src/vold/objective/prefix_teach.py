"""Where the teacher stops telling the student's own candidates apart, in the style of Prefix-Teach (arXiv 2605.13643).

The paper's formula of the margin, its K and the parameters of its test are not known to us: what is open is a key of
`vold.objective.terms.Prefix`, and this is no reproduction.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

MarginForm = Literal["log_gap", "probability_gap", "best_to_mean"]
"""How a teacher's margin over K candidates is read. `log_gap`: best minus second best log-prob. `probability_gap`: the
same of probabilities. `best_to_mean`: best log-prob minus the mean over the candidates."""

BOUNDARY = r"[.!?][\"')\]]*(?=\s|$)\n*|[\u3002\uff01\uff1f]\n*|\n+"
"""End of a sentence: a full stop, question or exclamation mark before white space, or a line's end."""
FLAT = 1e-24
"""Relative spread at which a series counts as constant: rounding must not look like a step."""


@dataclass(frozen=True)
class Cut:
    """Where the teacher's supervision of a response ends, and how sure the test is of it.

    `segment` counts the segments before the cut; None leaves the response whole. `gain` is BIC_0 - BIC_1 of the best
    split: above 0 for a cut.

    Example:
        >>> Cut(segment=2, gain=3.5).segment
        2
    """

    segment: int | None
    gain: float


def top_k_margin(candidate_logp: ArrayLike, form: MarginForm = "log_gap") -> Numbers:
    """The teacher's margin over the student's K likeliest tokens at every position, never negative; NaN where one of
    their log-probs is not finite.

    Args:
        candidate_logp: [..., k] the teacher's log-probs of those candidates, k ≥ 2.
        form: how the margin is read.

    Raises:
        ValueError: fewer than two candidates.

    Example:
        >>> top_k_margin([[-3.0, -1.0, -2.0], [-1.0, -2.0, -9.0]])
        array([1., 1.])
        >>> top_k_margin([[-3.0, -1.0, -2.0]], "best_to_mean")
        array([1.])
    """
    values = np.asarray(candidate_logp)
    if values.shape[-1] < 2:
        raise ValueError(f"a margin needs two candidates, got {values.shape[-1]}")
    columns = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    lowest = highest = columns[0]
    runner_up = np.full_like(highest, -np.inf)
    for column in columns[1:]:
        runner_up = np.maximum(runner_up, np.minimum(highest, column))
        highest, lowest = np.maximum(highest, column), np.minimum(lowest, column)
    known = np.isfinite(lowest) & np.isfinite(highest)
    best, second = (np.where(known, v, 0.0).astype(np.float64) for v in (highest, runner_up))
    if form == "best_to_mean":
        margin = best - np.where(known, columns, 0.0).sum(0, dtype=np.float64) / len(columns)
    else:
        margin = best - second if form == "log_gap" else np.exp(best) - np.exp(second)
    return np.where(known, margin, np.nan)


def segment_spans(token_texts: Sequence[str], boundary: str = BOUNDARY) -> list[range]:
    """Sentences of a response as ranges of tokens that together cover it.

    A token that holds the end of a sentence belongs to that sentence. What follows the last boundary is a segment of
    its own.

    Args:
        token_texts: [response] the text each token adds; joined they are the response.
        boundary: regular expression of what ends a segment.

    Example:
        >>> segment_spans(["A", " b", ".", " C", "."])
        [range(0, 4), range(4, 5)]
        >>> segment_spans(["A", ".", "\\\\n", "C"])
        [range(0, 3), range(3, 4)]
    """
    ends = np.cumsum(list(map(len, token_texts)))
    found = np.array([m.end() for m in re.finditer(boundary, "".join(token_texts))], np.int64)
    stops = np.unique(np.append(np.searchsorted(ends, found) + 1, len(token_texts))).tolist()
    return [range(start, stop) for start, stop in itertools.pairwise([0, *stops])] if token_texts else []


def segment_means(values: ArrayLike, spans: Sequence[range]) -> list[tuple[float, int]]:
    """Mean of the finite values of each segment that has any, and where the segment ends.

    Example:
        >>> segment_means([1.0, 3.0, float("nan"), 5.0], [range(0, 2), range(2, 3), range(3, 4)])
        [(2.0, 2), (5.0, 4)]
    """
    numbers = np.asarray(values, np.float64)
    known = np.flatnonzero(np.isfinite(numbers))
    finite = numbers[known].tolist()
    edges = np.searchsorted(known, [(span.start, span.stop) for span in spans] or np.zeros((0, 2))).tolist()
    return [
        (math.fsum(finite[first:last]) / (last - first), span.stop)
        for (first, last), span in zip(edges, spans, strict=True)
        if last > first
    ]


def downward_change(series: Sequence[float], least: int = 2) -> Cut:
    """BIC test for one downward step in a series of segment means.

    Against one mean, BIC_0 = n ln(RSS_0 / n) + ln n, stands a mean before and a mean after each place that leaves
    `least` segments on both sides, BIC_1 = n ln(RSS_1 / n) + 3 ln n (two means and the place). The best place is taken
    if its mean before is the higher one and BIC_1 < BIC_0.

    Args:
        series: [segments] mean margins.
        least: fewest segments on each side of a cut.

    Example:
        >>> downward_change([5.0, 5.1, 4.9, 1.0, 1.1, 0.9]).segment
        3
    """
    values = np.asarray(series, np.float64)
    n = len(values)
    whole = _squares(series)
    if n < 2 * least or whole <= FLAT * n * np.abs(values).max() ** 2:
        return Cut(None, 0.0)
    places = np.arange(least, n - least + 1)
    sums = np.cumsum(values - math.fsum(series) / n)
    before, after = sums[places - 1] / places, (sums[-1] - sums[places - 1]) / (n - places)
    # what a mean on each side explains of the squares about one mean
    explained = np.where(before > after, places * before**2 + (n - places) * after**2, -np.inf)
    best = int(np.argmax(explained))
    if explained[best] == -np.inf:
        return Cut(None, 0.0)
    place = int(places[best])
    rest = _squares(series[:place]) + _squares(series[place:])
    gain = n * math.log(whole / max(rest, whole * 1e-12)) - 2 * math.log(n)
    return Cut(place if gain > 0 else None, gain)


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / max(1, len(values))
    return math.fsum((v - mean) ** 2 for v in values)
