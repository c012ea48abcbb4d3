"""How many seeds a difference needs, against published tables of the paired t test."""

from __future__ import annotations

import math

import pytest

from vold.errors import DataError
from vold.evals.power import detectable, power, seeds_for, spread_of

# Cohen's d, pairs for 80% at 5% two-sided, and the power they have (G*Power 3, "difference between two dependent
# means"); the normal approximation gives 32, 13 and 8.
TABLE = [(0.5, 34, 0.8078), (0.8, 15, 0.8213), (1.0, 10, 0.8031)]


@pytest.mark.parametrize(("d", "n", "expected"), TABLE)
def test_power_of_paired_differences_is_the_tabulated_one(d: float, n: int, expected: float) -> None:
    assert power(d, n, 1.0) == pytest.approx(expected, abs=1e-4)
    assert power(3 * d, n, 3.0) == pytest.approx(power(-d, n, 1.0)) == pytest.approx(expected, abs=1e-4)
    assert seeds_for(d, 1.0) == n


def test_what_is_detectable_is_found_with_that_chance() -> None:
    for n, sd, alpha in ((5, 0.02, 0.05), (8, 0.03, 0.005), (3, 1.0, 0.05)):
        assert power(detectable(n, sd, alpha), n, sd, alpha) == pytest.approx(0.8, abs=1e-6)
    assert detectable(1, 0.02) == math.inf
    assert detectable(5, 0.0) == 0.0
    assert power(0.0, 5, 1.0) == pytest.approx(0.05)
    assert power(50.0, 5, 0.1) == 1.0


def test_a_difference_that_takes_too_many_seeds_is_none() -> None:
    assert seeds_for(0.001, 1.0) is None
    assert seeds_for(0.0, 1.0) is None
    assert seeds_for(100.0, 1.0) == 2


def test_more_items_leave_the_spread_of_seeds() -> None:
    """Differences 0.01, 0.03, 0.05 have the variance 0.0004; on 1,000 items of variance 0.2 each, 0.0002 is theirs."""
    found = spread_of([0.01, 0.03, 0.05], 0.2, 1000)
    assert found.items == 0.2
    assert found.seeds == pytest.approx(0.0002)
    assert found.sd(1000) == pytest.approx(0.02)
    assert found.sd(100) == pytest.approx(math.sqrt(0.0002 + 0.002))
    assert spread_of([0.01, 0.0101], 0.5, 100).sd(100) == pytest.approx(math.sqrt(0.005))
    near = spread_of([0.01, 0.02, 0.03, 0.04, 0.05], 0.5, 100)  # of arms that answer the same items; variance 0.00025
    assert near.seeds == 0.0
    assert near.items == pytest.approx(0.025)
    with pytest.raises(DataError, match="two differences"):
        spread_of([0.1], 0.5, 100)
