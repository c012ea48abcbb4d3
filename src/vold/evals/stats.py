"""Error bars, intervals and tests for accuracies. Pure functions of numbers; nothing here reads a file.

Scores are floats (0 or 1 for greedy accuracy, the mean over k samples for avg@k), one per item, or one per seed where
seeds are compared. SciPy is imported only by the functions that need Student's t distribution.

Sources: Wilson 1927 (JASA 22:209); McNemar 1947 (Psychometrika 12:153); Holm 1979 (Scand. J. Statist. 6:65); Liang &
Zeger 1986 (Biometrika 73:13); Bonett & Price 2012 (J. Educ. Behav. Statist. 37:479); Chen et al. 2021 (arXiv
2107.03374); Miller 2024, "Adding error bars to evals" (arXiv 2411.00640). Intervals of shares: `vold.evals.shares`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from vold.errors import DataError
from vold.evals.checked import SAME, finite, mismatch, t_cdf, t_quantile
from vold.evals.shares import effective_number, wilson
from vold.run.comparison import PairedDifference

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


def mean_stderr(scores: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error s / sqrt(n), s being the sample standard deviation (n - 1).

    The standard error of a single score is NaN: one number says nothing about spread.

    Raises:
        DataError: no scores, or one that is not finite.
    """
    values = finite(scores, "scores")
    mean = fmean(values)
    return mean, _sample_sd(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def clustered_stderr(scores: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the standard error of the mean when items of one cluster (say, one image) are not independent.

    sqrt( G/(G-1) * sum over clusters (sum in cluster (s_i - mean))^2 ) / n with G clusters: the cluster-robust variance
    of Liang & Zeger 1986 with the usual small-sample factor. With every item in a cluster of its own it is exactly
    s / sqrt(n); Miller 2024 (section 2.2) uses the same sum without the factor on its cross terms.

    Raises:
        DataError: empty or unequal inputs, or fewer than two clusters.
    """
    values = finite(scores, "scores")
    if len(clusters) != len(values):
        raise mismatch("scores and clusters", len(values), len(clusters))
    mean = fmean(values)
    sums: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster].append(value - mean)
    groups = len(sums)
    if groups < 2:
        raise DataError(
            "a clustered standard error needs at least two clusters",
            where="clusters",
            got=str(groups),
            fix="cluster by something that varies, such as the image or the seed question",
        )
    total = math.fsum(math.fsum(deviations) ** 2 for deviations in sums.values())
    return math.sqrt(groups / (groups - 1) * total) / len(values)


def wilson_interval(k: int, n: int, conf: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, k right of n; sound for small n and for k = 0 or n.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = k/n (Wilson 1927).

    Raises:
        DataError: n < 1, or k outside 0..n, or conf outside (0, 1).
    """
    if n < 1 or not 0 <= k <= n:
        raise DataError("a proportion needs 0 <= k <= n and n >= 1", got=f"k={k}, n={n}", fix="count the items again")
    return wilson(k / n, n, NormalDist().inv_cdf((1 + _share(conf, "conf")) / 2))


def t_interval(
    values: Sequence[float], conf: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """Return the Student-t confidence interval of a mean, mean +- t(n-1) * s / sqrt(n). Meant for a few seeds.

    With `clusters`, one a value, it is mean +- t(G-1) * the clustered standard error, G being the number of clusters.
    Equal values have no spread to judge by: their interval is (-inf, inf).

    Raises:
        DataError: fewer than two values or clusters, one that is not finite, or conf outside (0, 1).
    """
    numbers = finite(values, "values", least=2)
    mean, stderr, df = _error(numbers, clusters)
    half = t_quantile((1 + _share(conf, "conf")) / 2, df) * stderr
    return (mean - half, mean + half) if _spread(stderr, numbers) else (-math.inf, math.inf)


def paired_difference(
    a: Sequence[float], b: Sequence[float], conf: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> PairedDifference:
    """Compare two arms on the same items or seeds: answers, scored 0 or 1, by `share_difference`, other numbers by
    `paired_t`.

    Raises:
        DataError: unequal lengths, fewer than two pairs or clusters, or a value that is not finite.
    """
    compare = share_difference if {*a, *b} <= {0.0, 1.0} else paired_t
    return compare(a, b, conf, clusters)


def paired_t(
    a: Sequence[float],
    b: Sequence[float],
    conf: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    *,
    shares: bool | None = None,
) -> PairedDifference:
    """Compare two arms on the same seeds by the paired t test of a - b.

    t = mean(d) / (sd(d) / sqrt(n)) with n - 1 degrees of freedom. With `clusters`, one a pair, the standard error is
    the clustered one of the differences, with one degree of freedom less than there are clusters. The interval of
    `shares` is cut at -1 and 1; numbers are taken for such where all lie in [0, 1] and nothing else is said.

    If all differences are equal there is no spread to judge by: the interval is as wide as can be, and the p-value 1
    for no difference and that of the sign test for any, 2^(1-n).

    Raises:
        DataError: unequal lengths, fewer than two pairs or clusters, or a value that is not finite.
    """
    first, second = _pairs(a, b)
    differences = [x - y for x, y in zip(first, second, strict=True)]
    mean, stderr, df = _error(differences, clusters)
    shares = all(0 <= x <= 1 for x in (*first, *second)) if shares is None else shares
    bound = 1.0 if shares else math.inf
    if not _spread(stderr, (*first, *second)):
        p_value = _sign_test(df + 1) if _spread(abs(mean), (*first, *second)) else 1.0
        return PairedDifference(mean, 0.0, -bound, bound, p_value, len(differences))
    half = t_quantile((1 + _share(conf, "conf")) / 2, df) * stderr
    p_value = min(1.0, 2 * t_cdf(-abs(mean / stderr), df))
    return PairedDifference(mean, stderr, max(-bound, mean - half), min(bound, mean + half), p_value, len(differences))


def share_difference(
    a: Sequence[float], b: Sequence[float], conf: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> PairedDifference:
    """Compare the scores, in [0, 1], of two arms on the same items: interval and p-value of the mean of a - b.

    Among 0/1 answers of which a wins W pairs of n and b L, one more won by each is added (Bonett & Price 2012): with
    w = (W + 1) / (n + 2) and l = (L + 1) / (n + 2) the interval is w - l +- t sqrt((w + l - (w - l)^2) / (n + 2)), cut
    at -1 and 1, and the p-value is that of the same statistic, so that a few pairs won prove little, as in McNemar's
    exact test; where all pairs are won by one it is at least that of the sign test. For graded scores, means of
    samples and items in `clusters`, W / n and L / n are the means of what a and b are ahead, and n the effective number
    of pairs, as in `vold.evals.shares.share_interval`. `stderr` is that of the plain mean.

    Raises:
        DataError: unequal lengths, fewer than two pairs or clusters, or a score that is not in [0, 1].
    """
    first, second = _pairs(a, b)
    odd = next((x for x in (*first, *second) if not 0 <= x <= 1), None)
    if odd is not None:
        raise DataError("a score lies in [0, 1]", got=repr(odd), fix="use paired_t for other numbers")
    differences = [x - y for x, y in zip(first, second, strict=True)]
    mean, stderr, df = _error(differences, clusters)
    n, groups = len(differences), df + 1
    ahead, behind = (math.fsum(max(0.0, sign * d) for d in differences) / n for sign in (1, -1))
    # the variance that `groups` 0/1 pairs of these means would have, and the one that was found
    spread = stderr**2 * df
    pairs = effective_number(ahead + behind - mean**2, spread, groups)
    won, lost = (ahead * pairs + 1) / (pairs + 2), (behind * pairs + 1) / (pairs + 2)
    centre, error = won - lost, math.sqrt((won + lost - (won - lost) ** 2) / (pairs + 2))
    half = t_quantile((1 + _share(conf, "conf")) / 2, df) * error
    p_value = min(1.0, 2 * t_cdf(-abs(centre / error), df))
    if not _spread(stderr, differences) and mean != 0.0:
        p_value = max(p_value, _sign_test(groups))
    return PairedDifference(mean, stderr, max(-1.0, centre - half), min(1.0, centre + half), p_value, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given: those of at most alpha are found with
    a chance of at most alpha that any of them is a false one, however they depend on each other.

    The i-th smallest of m, from 0, is multiplied by m - i, is never below the one before it, and at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    out, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = out[i] = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
    return out


def mcnemar_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p-value of McNemar's exact test of two arms marked right (1) or wrong (0) item by item.

    Of the m items on which the arms differ, the number won by one arm is Binomial(m, 1/2) if they are equally good:
    p = min(1, 2 * sum_{i <= min(wins, losses)} C(m, i) / 2^m). With m = 0 it is 1.

    Raises:
        DataError: empty or unequal inputs, or a score other than 0 and 1.
    """
    first, second = finite(a, "a"), finite(b, "b")
    if len(first) != len(second):
        raise mismatch("a and b", len(first), len(second))
    odd = next((x for x in (*first, *second) if x not in (0.0, 1.0)), None)
    if odd is not None:
        raise DataError(
            "McNemar's test needs scores of 0 and 1", got=repr(odd), fix="use paired_difference for graded scores"
        )
    wins = sum(x > y for x, y in zip(first, second, strict=True))
    losses = sum(x < y for x, y in zip(first, second, strict=True))
    m = wins + losses
    tail = sum(math.comb(m, i) for i in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**m))


def min_detectable_difference(n: int, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest true difference that `n` pairs show with probability `power`, two-sided at `alpha`.

    (z_{1-alpha/2} + z_{power}) * sd / sqrt(n), the normal approximation (Miller 2024, section 5). `sd` is the standard
    deviation of the per-item difference: for two 0/1 arms of accuracy p and correlation r it is sqrt(2 p (1-p) (1-r)).

    Raises:
        DataError: n < 1, sd negative or not finite, or power or alpha outside (0, 1).
    """
    if n < 1 or not (math.isfinite(sd) and sd >= 0):
        raise DataError("need n >= 1 and a finite sd >= 0", got=f"n={n}, sd={sd}", fix="estimate sd from a pilot run")
    normal = NormalDist()
    z = normal.inv_cdf(1 - _share(alpha, "alpha") / 2) + normal.inv_cdf(_share(power, "power"))
    return z * sd / math.sqrt(n)


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the unbiased estimate of the chance that at least one of `k` samples is right, from `right` of `n`.

    1 - C(n - right, k) / C(n, k) (Chen et al. 2021, equation 1), in exact integers until the last division.

    Raises:
        DataError: not 1 <= k <= n, or not 0 <= right <= n.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise DataError(
            "pass@k needs 1 <= k <= n and 0 <= right <= n",
            got=f"n={n}, right={right}, k={k}",
            fix="draw at least k samples for every problem",
        )
    draws = math.comb(n, k)
    return (draws - math.comb(n - right, k)) / draws


def _pairs(a: Sequence[float], b: Sequence[float]) -> tuple[list[float], list[float]]:
    first, second = finite(a, "a", least=2), finite(b, "b", least=2)
    if len(first) != len(second):
        raise mismatch("a and b", len(first), len(second))
    return first, second


def _share(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise DataError("must lie strictly between 0 and 1", where=name, got=repr(value), fix="write 95 % as 0.95")
    return value


def _error(values: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[float, float, int]:
    """Mean, its standard error and the degrees of freedom of that."""
    if clusters is None:
        return *mean_stderr(values), len(values) - 1
    return fmean(values), clustered_stderr(values, clusters), len(set(clusters)) - 1


def _spread(stderr: float, values: Sequence[float]) -> bool:
    """Whether it is more than rounding of these values."""
    return stderr > SAME * max(map(abs, values))


def _sign_test(n: int) -> float:
    return 2.0 ** (1 - n)


def _sample_sd(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
