"""How large a difference a planned number of seeds shows, and how many seeds a difference needs.

The paired t test of n differences with standard deviation sd sees a true difference d as a noncentral t with
n - 1 degrees of freedom and noncentrality d sqrt(n) / sd (Cohen 1988, Statistical power analysis, 2.5). The normal
approximation (`vold.evals.stats.min_detectable_difference`) is far too hopeful about five seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from vold.errors import DataError
from vold.evals.checked import t_quantile

MOST = 1000
"""Seeds beyond which none are looked for."""


def power(difference: float, n: int, sd: float, alpha: float = 0.05) -> float:
    """The chance that n pairs show a true difference, two-sided at `alpha`.

    Example:
        >>> round(power(0.5, 34, 1.0), 2)
        0.81
    """
    from scipy.special import nctdtr  # type: ignore[import-untyped, unused-ignore]

    if sd == 0.0:
        return float(difference != 0.0)
    t, shift = t_quantile(1 - alpha / 2, n - 1), abs(difference) * math.sqrt(n) / sd
    # Beyond a shift of 37 the function overflows, and nothing is left below t.
    missed = float(nctdtr(n - 1, shift, t) - nctdtr(n - 1, shift, -t)) if shift < 37 else 0.0
    return 1.0 - missed if math.isfinite(missed) else 1.0


def detectable(n: int, sd: float, alpha: float = 0.05, chance: float = 0.8) -> float:
    """The smallest true difference that n pairs show with this chance; infinite for one.

    Example:
        >>> round(detectable(34, 1.0), 2), detectable(1, 1.0)
        (0.5, inf)
    """
    if n < 2 or sd == 0.0:
        return math.inf if n < 2 else 0.0
    low, high = 0.0, sd
    while power(high, n, sd, alpha) < chance:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, n, sd, alpha) < chance else (low, middle)
    return high


def seeds_for(difference: float, sd: float, alpha: float = 0.05, chance: float = 0.8) -> int | None:
    """The fewest pairs that show a true difference with this chance; None if it takes more than `MOST`.

    Example:
        >>> seeds_for(0.5, 1.0), seeds_for(1e-6, 1.0)
        (34, None)
    """
    if difference <= 0 or power(difference, MOST, sd, alpha) < chance:
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, middle, sd, alpha) >= chance else (middle, high)
    return high


FEW = 5
"""Differences whose variance is believed where it is below what answers alone would make of it."""


@dataclass(frozen=True)
class Spread:
    """Of paired differences from seed to seed: `seeds`, the variance between training runs, and `items`, that which the
    answers to one item add, so that it is seeds + items / n with n items."""

    seeds: float
    items: float

    def sd(self, n: int) -> float:
        """With n items."""
        return math.sqrt(self.seeds + self.items / n)


def spread_of(differences: Sequence[float], items: float, n: int) -> Spread:
    """The spread behind differences that were measured on n items each, of which one adds the variance `items`.

    Raises:
        DataError: fewer than two differences.
    """
    if len(differences) < 2:
        raise DataError("a spread needs two differences or more", got=str(len(differences)), fix="run more seeds")
    if len(differences) >= FEW:  # two arms that were asked the same are not each on its own
        items = min(items, n * variance(differences))
    return Spread(max(0.0, variance(differences) - items / n), items)
