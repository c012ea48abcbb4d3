"""Intervals of shares, within [0, 1] and sound for few items and near 0 and 1. Pure functions of numbers.

Sources: Wilson 1927 (JASA 22:209); Clopper & Pearson 1934 (Biometrika 26:404); Korn & Graubard 1998 (Survey Methodology
24:193); Brown, Cai & DasGupta 2001 (Statist. Sci. 16:101). docs/evaluation.md has their coverage.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import NormalDist
from typing import TYPE_CHECKING

from vold.errors import DataError
from vold.evals.checked import SAME, finite, mismatch, t_quantile

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

TAIL = 0.07
"""Towards the nearer of 0 and 1 a share's 95% interval reaches at least to the exact one-sided limit of this tail, so
that it misses the truth there in 7% of cases at most; Wilson's alone misses up to 16% where few items are wrong."""
UNSEEN = 0.07
"""Of one more cluster that spread estimates are made with: a few clusters that happen to be alike prove no precision.
Its size was chosen by simulated coverage."""


def share_interval(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """Return the 95% interval of a mean of scores in [0, 1], within [0, 1] and sound for few items and near 0 and 1.

    For one 0/1 answer to each of independent items it is Wilson's. Otherwise, with several samples an item or with
    items in `clusters`, it is Wilson's for the effective number of items p(1-p) / se^2 (Korn & Graubard 1998) with the
    quantile of Student's t, G - 1 degrees of freedom for G clusters. Of scores that are all alike se says nothing, and
    the effective number is that of the clusters. Either way its end next to 0 or 1 is moved out to the limit of `TAIL`,
    as Brown, Cai & DasGupta 2001 mend Wilson's interval where few items are right or wrong. A single cluster gives
    [0, 1].

    Raises:
        DataError: empty or unequal inputs, or a score that is not in [0, 1].
    """
    values = finite(scores, "scores")
    if clusters is None:
        return ratio_interval(values, [1.0] * len(values))
    if len(clusters) != len(values):
        raise mismatch("scores and clusters", len(values), len(clusters))
    sums: defaultdict[Hashable, float] = defaultdict(float)
    sizes: defaultdict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value
        sizes[cluster] += 1
    return ratio_interval(list(sums.values()), list(sizes.values()))


def ratio_interval(parts: Sequence[float], sizes: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of sum(parts) / sum(sizes), one part and size a cluster; see `share_interval`.

    Raises:
        DataError: empty or unequal inputs, a size of 0, or a part that is not in [0, size].
    """
    tops, bottoms = finite(parts, "parts"), finite(sizes, "sizes")
    if len(tops) != len(bottoms):
        raise mismatch("parts and sizes", len(tops), len(bottoms))
    for top, bottom in zip(tops, bottoms, strict=True):
        if not (bottom > 0 and -SAME <= top <= bottom * (1 + SAME)):
            raise DataError("a share lies in [0, 1]", got=f"{top} of {bottom}", fix="use t_interval for other numbers")
    groups, total = len(tops), math.fsum(bottoms)
    share = min(1.0, max(0.0, math.fsum(tops) / total))
    if {*bottoms} == {1.0} and {*tops} <= {0.0, 1.0}:
        effective, reach = float(groups), NormalDist().inv_cdf(0.975)
    elif groups < 2:
        return 0.0, 1.0
    else:
        spread = math.fsum(((t - share * b) * groups / total) ** 2 for t, b in zip(tops, bottoms, strict=True)) / groups
        effective, reach = effective_number(share * (1 - share), spread, groups), t_quantile(0.975, groups - 1)
    low, high = wilson(share, effective, reach)
    if share < 0.5:
        low = min(low, _exact_limit(share * effective, effective))
    if share > 0.5:
        high = max(high, 1 - _exact_limit((1 - share) * effective, effective))
    return max(0.0, low), min(1.0, high)


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share p of n items, (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    n need not be a whole number.
    """
    square = z * z
    centre = (p + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n)) / (1 + square / n)
    return (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)


def effective_number(binomial: float, spread: float, groups: int) -> float:
    """How many independent 0/1 items tell as much as so many clusters: the variance of one such item over the spread of
    the clusters' means, times their number; their number where they are all alike."""
    if spread < SAME:
        return float(groups)
    unseen = UNSEEN / groups
    return groups * (max(0.0, binomial) + unseen) / (spread + unseen)


def _exact_limit(k: float, n: float) -> float:
    """The share below which k right of n, or more, happen in less than `TAIL` of cases (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(k, n - k + 1, TAIL)) if k > 0 else 0.0
