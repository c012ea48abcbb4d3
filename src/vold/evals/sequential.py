"""Looking at claims before all seeds have run, with the chance of a wrong verdict kept.

Between looks a test is done again and again, so a level of 5% at each is passed by chance more often than that. A
spending function says how much of the error may be used up by the time that a share t of the seeds has run (Lan &
DeMets 1983, Biometrika 70:659); the boundary of each look follows from it by numerical integration over the paths that
have not crossed before (Armitage, McPherson & Rowe 1969, JRSS A 132:235). Student's t over a few seeds is compared with
the boundary's nominal level (Pocock 1977, Biometrika 64:191), and what that lets through is counted and taken off.

A sequential p-value is the smallest error at which a boundary of the same kind would have been crossed at one of the
looks so far. It is a p-value at every look (Liu & Anderson 2008, JASA 103:1621), so claims are corrected for their
number by Holm's procedure on these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from vold.errors import ConfigError
from vold.run.section import Section

Spending = Literal["obrien-fleming", "pocock"]
NODES = 64
"""Points of the integral between two boundaries."""
FARTHEST = 12.0
"""Standard errors from 0 beyond which nothing is looked for."""
LEAST = 1e-12
"""Error below which none is told from 0."""
STUDIES, RARE = 100_000, 1e-3
"""Studies that are drawn to count how often Student's t crosses a boundary; the error below which these are too few."""


class Looks(Section):
    """When the claims of a study are looked at."""

    at: tuple[int, ...]
    """With how many seeds each, the first ones, rising to all of them. The study ends at the first look that decides
    every claim."""
    spending: Spending = "obrien-fleming"
    """How the error is spent: `obrien-fleming` keeps nearly all of it for the end, `pocock` spends it evenly."""

    def refuse_others(self, seeds: int) -> None:
        """See that the looks fit so many seeds.

        Raises:
            ConfigError: they do not rise to that number, or begin with fewer seeds than decide anything.
        """
        if list(self.at) != sorted(set(self.at)) or self.at[-1:] != (seeds,) or self.at[0] < 3:
            fix = f"write rising numbers from 3 or more to {seeds}, such as at: [{max(3, seeds // 2)}, {seeds}]"
            raise ConfigError("the looks do not fit the seeds", where="looks.at", got=str(list(self.at)), fix=fix)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The share of all seeds at every look."""
        return tuple(n / self.at[-1] for n in self.at)


def spent(t: float, alpha: float, spending: Spending) -> float:
    """The two-sided error that may be used up when a share t of the seeds has run.

    On each side half of it: 2 - 2 Phi(z_{alpha/4} / sqrt(t)), or alpha/2 ln(1 + (e - 1) t).

    Example:
        >>> round(spent(1.0, 0.05, "obrien-fleming"), 12), round(spent(0.5, 0.05, "pocock"), 4)
        (0.05, 0.031)
    """
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * t)
    return 2 * _two_sided(-NormalDist().inv_cdf(alpha / 4) / math.sqrt(t))


@functools.lru_cache(maxsize=4096)
def boundaries(fractions: tuple[float, ...], alpha: float, spending: Spending) -> tuple[float, ...]:
    """The standard errors a difference has to be away from 0 at every look, for a two-sided error of `alpha` in all.

    Example:
        >>> [round(z, 3) for z in boundaries((1.0,), 0.05, "pocock")]
        [1.96]
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    out: list[float] = []
    points, density, inside, before, at = np.zeros(1), np.ones(1), 1.0, 0.0, 0.0
    for t in fractions:
        now, step = spent(t, alpha, spending), math.sqrt(t - at)
        bound = _bound(points, density, step, max(inside - (now - before), 0.0), FARTHEST * math.sqrt(t))
        out.append(bound / math.sqrt(t))
        reached = bound * nodes
        steps = np.exp(-0.5 * ((reached[:, None] - points) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        density = steps @ density * bound * weights
        points, inside, before, at = reached, float(density.sum()), now, t
    return tuple(out)


def _bound(points: np.ndarray, density: np.ndarray, step: float, inside: float, farthest: float) -> float:
    """The distance from 0 within which so much of the next look's paths stays."""
    from scipy.special import ndtr  # type: ignore[import-untyped, unused-ignore]

    low, high = 0.0, farthest
    for _ in range(50):
        middle = (low + high) / 2
        stays = ndtr((middle - points) / step) - ndtr((-middle - points) / step)
        low, high = (middle, high) if float(stays @ density) < inside else (low, middle)
    return high


def nominal(fractions: tuple[float, ...], alpha: float, spending: Spending) -> list[float]:
    """The level that a p-value must not exceed at every look.

    Example:
        >>> [round(p, 4) for p in nominal((0.5, 1.0), 0.05, "obrien-fleming")]
        [0.0031, 0.049]
    """
    return [_two_sided(z) for z in boundaries(fractions, alpha, spending)]


def sequential_p(p_values: Sequence[float], looks: Looks) -> float:
    """The smallest error at which the boundary would have been crossed at one of the looks so far.

    Args:
        p_values: of two-sided t tests over the seeds so far, one a look, from the first on.
        looks: when those and the later ones are.

    Example:
        >>> round(sequential_p([0.3, 0.049], Looks(at=(20, 40))), 2), sequential_p([1.0], Looks(at=(3, 6)))
        (0.05, 1.0)
    """
    q = min(float(_errors(p, k, looks.fractions, looks.spending)) for k, p in enumerate(p_values))
    if q >= 1.0:
        return 1.0
    if q < RARE:
        return sum(nominal(looks.fractions, q, looks.spending))  # no two looks share more than that
    null = _under_none(looks.at, looks.spending)
    return max(q, float(np.searchsorted(null, q, "right")) / len(null))


@functools.lru_cache(maxsize=64)
def _levels(fractions: tuple[float, ...], spending: Spending) -> tuple[np.ndarray, np.ndarray]:
    """Errors, as logarithms, and the nominal level at every look that belongs to each."""
    errors = np.linspace(math.log(LEAST), math.log(0.98), 60)
    levels = np.array([nominal(fractions, math.exp(e), spending) for e in errors])
    return errors, np.log(np.maximum(levels, 1e-300))


def _errors(p: float | np.ndarray, look: int, fractions: tuple[float, ...], spending: Spending) -> np.ndarray:
    """The error of which a p-value at one look is the nominal level; 1 beyond the last."""
    errors, levels = _levels(fractions, spending)
    logs = np.log(np.maximum(p, 1e-300))
    found = np.exp(np.interp(logs, levels[:, look], errors))
    return np.asarray(np.where(logs > levels[-1, look], 1.0, found))


@functools.lru_cache(maxsize=16)
def _under_none(at: tuple[int, ...], spending: Spending) -> np.ndarray:
    """That error where there is no difference, of many studies with normal differences, in rising order: Student's t
    over a few seeds moves more from look to look than the normal paths of the boundaries do."""
    from scipy.special import stdtr  # type: ignore[import-untyped, unused-ignore]

    found, fractions = np.ones(STUDIES), tuple(n / at[-1] for n in at)
    drawn = np.random.default_rng(0).standard_normal((STUDIES, at[-1]))
    for look, n in enumerate(at):
        seen = drawn[:, :n]
        t = np.abs(seen.mean(axis=1)) / (seen.std(axis=1, ddof=1) / math.sqrt(n))
        found = np.minimum(found, _errors(2 * stdtr(n - 1, -t), look, fractions, spending))
    return np.sort(found)


def _two_sided(z: float) -> float:
    return math.erfc(z / math.sqrt(2))
