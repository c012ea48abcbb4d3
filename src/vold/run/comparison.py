"""What comparisons of models find: within a run (results.json), and by `vold compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PairedDifference:
    """A difference of means between two arms measured on the same `n` items or seeds, with its interval and test.

    Example:
        >>> PairedDifference(difference=1.0, stderr=0.5, low=-0.6, high=2.6, p_value=0.14, n=4).n
        4
    """

    difference: float
    """Mean of a - b. Unit: as a and b. Made by evals/stats.py:share_difference."""
    stderr: float
    """Its standard error. Unit: as a and b. Made by evals/stats.py:share_difference."""
    low: float
    """Lower end of its confidence interval, -1 or more for shares. Unit: as a and b. Made by
    evals/stats.py:share_difference."""
    high: float
    """Upper end. Unit: as a and b. Made by evals/stats.py:share_difference."""
    p_value: float
    """Two-sided p of no difference. Unit: 0 to 1. Made by evals/stats.py:share_difference."""
    n: int
    """Pairs. Unit: count. Made by evals/stats.py:share_difference."""


@dataclass(frozen=True, kw_only=True)
class ScoreDifference(PairedDifference):
    """A difference of a benchmark's own score (`comparisons[].derived` in results.json), over the clusters of both."""

    a: float
    """The first model's score. Unit: 0 to 1, or as its scale. Made by evals/compare.py:compare_answers."""
    b: float
    """The other's. Unit: 0 to 1, or as its scale. Made by evals/compare.py:compare_answers."""
    corrected_p: float | None = None
    """p corrected for the number of comparisons (Holm); absent for a score that is not read first. Unit: 0 to 1. Made
    by evals/compare.py:corrected."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models of one run on one set (`comparisons` in results.json)."""

    set: str
    """The set. Unit: name. Made by evals/evaluate.py:evaluate."""
    model: str
    """The later model. Unit: name. Made by evals/evaluate.py:evaluate."""
    against: str
    """The earlier model. Unit: name. Made by evals/evaluate.py:evaluate."""
    difference: float
    """Accuracy of `model` minus that of `against` on the items of both. Unit: -1 to 1. Made by
    evals/compare.py:compare_answers."""
    stderr: float
    """Its standard error, clustered where items share a source. Unit: 0 to 1. Made by
    evals/compare.py:compare_answers."""
    low: float
    """Lower end of its 95% interval. Unit: -1 to 1. Made by evals/compare.py:compare_answers."""
    high: float
    """Upper end. Unit: -1 to 1. Made by evals/compare.py:compare_answers."""
    p_value: float
    """Two-sided p of no difference, of the statistic that the interval is made of. Unit: 0 to 1. Made by
    evals/stats.py:share_difference."""
    corrected_p: float | None = None
    """The same, corrected for the number of comparisons of scores that are read first (Holm); absent where accuracy is
    none of them. Unit: 0 to 1. Made by evals/compare.py:corrected."""
    mcnemar_p: float | None
    """Two-sided p of McNemar's exact test; null where answers are not 0/1, not one an item or not independent. Unit:
    0 to 1. Made by evals/stats.py:mcnemar_exact."""
    min_detectable: float
    """The smallest true difference that so many items show with 80% power, two-sided at 5%. Unit: 0 to 1. Made by
    evals/stats.py:min_detectable_difference."""
    derived: Mapping[str, ScoreDifference]
    """Differences of the benchmark's own scores by name. Unit: see ScoreDifference. Made by
    evals/compare.py:compare_answers."""
    headline: tuple[str, ...] = ("accuracy",)
    """What is read first: `accuracy`, or names in `derived`. Unit: names. Made by evals/compare.py:compare_answers."""


@dataclass(frozen=True, kw_only=True)
class SetComparison:
    """Two evaluations on one set, a minus b, as `vold compare` prints them. Accuracies are shares of 1.

    `headline` is what is read first: `accuracy`, or names in `derived`. `corrected_p` is `p_value` corrected for the
    number of such scores that are compared (Holm), and absent where accuracy is none of them. `mcnemar_p` is None where
    answers are not 0/1, not one an item, or not independent. `detectable` is at 80% power,
    two-sided 5%. `only_a` and `only_b` count items that only one of them has. `derived` has the differences in scores
    such as We-Math's strict one, over composite problems. `forced` says in what the protocols differ, `official_n` how
    many items the benchmark's split has (None for a task set), and `differs` in what either figure differs from a
    published one.
    """

    name: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    stderr: float
    low: float
    high: float
    p_value: float
    corrected_p: float | None = None
    mcnemar_p: float | None
    detectable: float
    n: int
    only_a: int
    only_b: int
    clustered: bool
    forced: tuple[str, ...] = ()
    derived: Mapping[str, ScoreDifference] = field(default_factory=dict)
    headline: tuple[str, ...] = ("accuracy",)
    official_n: int | None = None
    differs: tuple[str, ...] = ()
