"""Looks before the end: boundaries against published ones, and the error that they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vold.errors import ConfigError
from vold.evals.sequential import Looks, Spending, boundaries, nominal, sequential_p, spent

# Two-sided 5%, looks at equal steps: Reboussin, DeMets, Kim & Lan 2000 (Controlled Clinical Trials 21:190), as the
# programs of Lan and DeMets print them.
PUBLISHED = [
    ("obrien-fleming", 2, [2.963, 1.969]),
    ("obrien-fleming", 3, [3.710, 2.511, 1.993]),
    ("obrien-fleming", 5, [4.877, 3.357, 2.680, 2.290, 2.031]),
    ("pocock", 2, [2.157, 2.201]),
    ("pocock", 5, [2.438, 2.427, 2.410, 2.397, 2.386]),
]


@pytest.mark.parametrize(("spending", "looks", "published"), PUBLISHED)
def test_boundaries_are_the_published_ones(spending: Spending, looks: int, published: list[float]) -> None:
    found = boundaries(tuple((k + 1) / looks for k in range(looks)), 0.05, spending)
    assert found == pytest.approx(published, abs=6e-4)


def test_a_single_look_is_the_plain_test() -> None:
    assert boundaries((1.0,), 0.05, "obrien-fleming") == pytest.approx((1.959964,), abs=1e-4)
    assert nominal((1.0,), 0.01, "pocock") == pytest.approx([0.01], rel=1e-4)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_all_of_the_error_is_spent_at_the_end_and_less_before(spending: Spending) -> None:
    found = [spent(t, 0.05, spending) for t in (0.25, 0.5, 0.75, 1.0)]
    assert found == sorted(found) and found[-1] == pytest.approx(0.05)
    # 4 (1 - Phi(2.2414 / sqrt(1/2))) = 0.00305 and 0.05 ln(1 + 0.5 (e - 1)) = 0.03101
    assert found[1] == pytest.approx({"obrien-fleming": 0.00305, "pocock": 0.03101}[spending], abs=1e-5)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_students_t_over_few_seeds_keeps_the_error(spending: Spending) -> None:
    """Of 4,000 studies without a difference those that are decided at any of the looks at 3, 5 and 8 seeds; tested at
    5% each time, 11% would be."""
    looks = Looks(at=(3, 5, 8), spending=spending)
    drawn = np.random.default_rng(5).standard_normal((4000, 8))
    p = np.array([stats.ttest_1samp(drawn[:, :n], 0.0, axis=1).pvalue for n in looks.at]).T
    found = np.array([sequential_p(row, looks) for row in p])
    for level in (0.01, 0.05, 0.2):
        assert (found <= level).mean() < level + 3 * math.sqrt(level * (1 - level) / 4000)
    assert (found <= 0.05).mean() > 0.038
    assert (p.min(axis=1) <= 0.05).mean() > 0.09


def test_what_is_seen_at_a_look_stays_seen() -> None:
    looks = Looks(at=(3, 5, 8))
    assert sequential_p([1e-6], looks) < 0.05 < sequential_p([0.04], looks)
    assert sequential_p([1e-6, 0.9], looks) == sequential_p([1e-6], looks)
    assert sequential_p([0.5, 0.5, 0.03], looks) < sequential_p([0.5, 0.5, 0.04], looks) < 0.06


@pytest.mark.parametrize("at", [(3, 8), (5, 3, 10), (2, 10), (), (5, 5, 10)])
def test_looks_that_do_not_fit_the_seeds_are_refused(at: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        Looks(at=at).refuse_others(10)
    Looks(at=(3, 10)).refuse_others(10)
