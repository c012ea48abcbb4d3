"""Where the teacher stops telling the student's own candidates apart, in the style of Prefix-Teach (arXiv 2605.13643).

The paper's formula of the margin, its K and the parameters of its test are not known to us: what is open is a key of
`vold.objective.terms.Prefix`, and this is no reproduction.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def top_k_margin(candidate_logp: Sequence[float], form: MarginForm = "log_gap") -> float:
    """The teacher's margin over the student's K likeliest tokens at one position, never negative.

    Args:
        candidate_logp: [k] the teacher's log-probs of those candidates, k ≥ 2.
        form: how the margin is read.

    Raises:
        ValueError: fewer than two candidates.

    Example:
        >>> top_k_margin([-3.0, -1.0, -2.0]), top_k_margin([-3.0, -1.0, -2.0], "best_to_mean")
        (1.0, 1.0)
    """
    if len(candidate_logp) < 2:
        raise ValueError(f"a margin needs two candidates, got {len(candidate_logp)}")
    best, second = sorted(candidate_logp, reverse=True)[:2]
    if form == "best_to_mean":
        return best - math.fsum(candidate_logp) / len(candidate_logp)
    return best - second if form == "log_gap" else math.exp(best) - math.exp(second)


def segment_spans(pieces: Sequence[str], boundary: str = BOUNDARY) -> list[range]:
    """Sentences of a response as ranges of tokens that together cover it.

    A token that holds the end of a sentence belongs to that sentence. What follows the last boundary is a segment of
    its own.

    Args:
        pieces: [response] the text each token adds; joined they are the response.
        boundary: regular expression of what ends a segment.

    Example:
        >>> segment_spans(["A", " b", ".", " C", "."])
        [range(0, 4), range(4, 5)]
        >>> segment_spans(["A", ".", "\\\\n", "C"])
        [range(0, 3), range(3, 4)]
    """
    ends, position = [], 0
    for piece in pieces:
        position += len(piece)
        ends.append(position)
    spans: list[range] = []
    start = token = 0
    for found in re.finditer(boundary, "".join(pieces)):
        while ends[token] < found.end():
            token += 1
        if token + 1 > start:
            spans.append(range(start, token + 1))
            start = token + 1
    return [*spans, range(start, len(pieces))] if start < len(pieces) else spans


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
    n = len(series)
    best: tuple[float, int] | None = None
    for place in range(least, n - least + 1):
        before, after = series[:place], series[place:]
        if math.fsum(before) / len(before) > math.fsum(after) / len(after):
            rest = _squares(before) + _squares(after)
            best = min((rest, place), best or (math.inf, 0))
    whole = _squares(series) if best is not None else 0.0
    if best is None or whole <= FLAT * n * max(abs(v) for v in series) ** 2:
        return Cut(None, 0.0)
    gain = n * math.log(whole / max(best[0], whole * 1e-12)) - 2 * math.log(n)
    return Cut(best[1] if gain > 0 else None, gain)


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values)
