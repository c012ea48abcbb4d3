"""Values worked by hand, from closed forms (t with 1 and 2 degrees of freedom) or from the literature."""

from __future__ import annotations

import itertools
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vold.errors import DataError
from vold.evals.stats import (
    clustered_stderr,
    mcnemar_exact,
    mean_stderr,
    min_detectable_difference,
    paired_difference,
    pass_at_k,
    t_interval,
    wilson_interval,
)

T2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)
"""97.5 % point of t with 2 degrees of freedom: (2p - 1) / sqrt(2 p (1 - p)) = 4.3027."""

scores = st.lists(st.floats(-10, 10), min_size=2, max_size=30)


def test_mean_stderr_by_hand() -> None:
    assert mean_stderr([1, 0, 1, 0]) == pytest.approx((0.5, math.sqrt(1 / 12)), rel=1e-12)
    # mean 5, squares sum to 32: s^2 = 32/7
    assert mean_stderr([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((5.0, math.sqrt(4 / 7)), rel=1e-12)
    assert mean_stderr([3, 3, 3]) == (3.0, 0.0)


def test_mean_stderr_of_one_is_unknown() -> None:
    mean, stderr = mean_stderr([0.25])
    assert mean == 0.25 and math.isnan(stderr)


def test_clustered_by_hand() -> None:
    # Two clusters of twins are two observations: 1 and 0 have s = sqrt(1/2), stderr 1/2.
    assert clustered_stderr([1, 1, 0, 0], ["a", "a", "b", "b"]) == pytest.approx(0.5, rel=1e-12)
    # mean 3/5; deviations .4 .4 | .4 -.6 | -.6: sums .8, -.2, -.6, squares 1.04; sqrt(3/2 * 1.04) / 5
    assert clustered_stderr([1, 1, 1, 0, 0], [1, 1, 2, 2, 3]) == pytest.approx(math.sqrt(1.56) / 5, rel=1e-12)
    # Opposite twins cancel: every cluster sums to 0.
    assert clustered_stderr([1, 0, 1, 0], [1, 1, 2, 2]) == 0.0


@given(scores)
def test_clusters_of_one_are_no_clusters(values: list[float]) -> None:
    assert clustered_stderr(values, range(len(values))) == pytest.approx(mean_stderr(values)[1], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_of_newcombe_1998(k: int, n: int, low: float, high: float) -> None:
    """Table I, method 3, of Newcombe 1998 (Statistics in Medicine 17:857)."""
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_closed_forms() -> None:
    z = 1.959963984540054
    assert wilson_interval(0, 10) == pytest.approx((0.0, z * z / (10 + z * z)), rel=1e-12)
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z * z), 1.0), rel=1e-12)
    half = z / (2 * math.sqrt(10 + z * z))
    assert wilson_interval(5, 10) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-12)


@given(st.integers(1, 500), st.data())
def test_wilson_is_inside_and_symmetric(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_t_interval_closed_forms() -> None:
    t1 = math.tan(math.pi * 0.475)  # one degree of freedom: Cauchy, 12.706
    assert t_interval([0, 2]) == pytest.approx((1 - t1, 1 + t1), rel=1e-9)
    half = T2 / math.sqrt(3)
    assert t_interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half), rel=1e-9)
    t90 = 0.9 / math.sqrt(2 * 0.95 * 0.05)
    assert t_interval([1, 2, 3], conf=0.9)[1] == pytest.approx(2 + t90 / math.sqrt(3), rel=1e-9)


def test_paired_closed_form() -> None:
    # differences 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)
    found = paired_difference([2, 4, 6], [1, 2, 3])
    assert found.n == 3 and found.difference == pytest.approx(2.0)
    assert found.stderr == pytest.approx(1 / math.sqrt(3), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((2 - T2 / math.sqrt(3), 2 + T2 / math.sqrt(3)), rel=1e-9)
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-9)


def test_paired_of_student_1908() -> None:
    """The sleep data (Biometrika 6:20): t(9) = 4.0621, p = 0.002833, interval 0.7001 to 2.4599."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(second, first)
    assert found.difference == pytest.approx(1.58)
    assert found.difference / found.stderr == pytest.approx(4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=5e-5)


def test_paired_without_spread() -> None:
    same = paired_difference([1, 0, 1], [1, 0, 1])
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    ahead = paired_difference([1, 1], [0, 0])
    assert (ahead.difference, ahead.low, ahead.high, ahead.p_value) == (1.0, 1.0, 1.0, 0.0)


@given(scores, st.data())
def test_paired_is_antisymmetric(a: list[float], data: st.DataObject) -> None:
    b = data.draw(st.lists(st.floats(-10, 10), min_size=len(a), max_size=len(a)))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)
    assert 0 <= there.p_value <= 1


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "p"),
    [
        (9, 1, 5, 22 / 1024),  # 2 (C(10,0) + C(10,1)) / 2^10
        (1, 9, 0, 22 / 1024),
        (5, 0, 3, 2 / 32),
        (3, 3, 0, 1.0),  # the doubled tail is above 1
        (2, 1, 0, 1.0),
        (0, 0, 4, 1.0),
        (6, 2, 1, 2 * (1 + 8 + 28) / 256),
    ],
)
def test_mcnemar_by_hand(wins: int, losses: int, ties: int, p: float) -> None:
    a = [1] * wins + [0] * losses + [1] * ties
    b = [0] * wins + [1] * losses + [1] * ties
    assert mcnemar_exact(a, b) == p


def test_mcnemar_of_many_items() -> None:
    assert mcnemar_exact([1] * 3000 + [0] * 3000, [0] * 3000 + [1] * 3000) == 1.0
    assert mcnemar_exact([True] * 2000, [False] * 2000) == 0.0  # 2^-1999 is below the smallest float


def test_min_detectable_difference() -> None:
    # z(0.975) + z(0.8) = 1.959964 + 0.841621
    assert min_detectable_difference(100, 1.0) == pytest.approx(0.2801585, abs=1e-7)
    assert min_detectable_difference(400, 1.0) == pytest.approx(0.2801585 / 2, abs=1e-7)
    assert min_detectable_difference(100, 0.0) == 0.0
    # z(0.95) + z(0.9) = 1.644854 + 1.281552
    assert min_detectable_difference(25, 2.0, power=0.9, alpha=0.1) == pytest.approx(0.4 * 2.926406, abs=1e-6)


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7, rel=1e-15)  # 1 - C(3,2)/C(5,2)
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3, rel=1e-15)
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(2000, 1, 1000) == 0.5


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_by_enumeration(n: int) -> None:
    for right in range(n + 1):
        for k in range(1, n + 1):
            draws = list(itertools.combinations(range(n), k))
            hits = sum(any(i < right for i in draw) for draw in draws)
            assert pass_at_k(n, right, k) == pytest.approx(hits / len(draws), abs=1e-15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_stderr([]),
        lambda: mean_stderr([1.0, math.nan]),
        lambda: clustered_stderr([], []),
        lambda: clustered_stderr([1, 0], ["a"]),
        lambda: clustered_stderr([1, 0], ["a", "a"]),
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(5, 4),
        lambda: wilson_interval(-1, 4),
        lambda: wilson_interval(1, 4, conf=95),
        lambda: t_interval([1.0]),
        lambda: t_interval([1.0, math.inf]),
        lambda: t_interval([1.0, 2.0], conf=1.0),
        lambda: paired_difference([], []),
        lambda: paired_difference([1], [1]),
        lambda: paired_difference([1, 2], [1, 2, 3]),
        lambda: mcnemar_exact([], []),
        lambda: mcnemar_exact([1], [1, 0]),
        lambda: mcnemar_exact([0.5], [1]),
        lambda: min_detectable_difference(0, 1.0),
        lambda: min_detectable_difference(10, -1.0),
        lambda: min_detectable_difference(10, math.nan),
        lambda: min_detectable_difference(10, 1.0, power=1.0),
        lambda: pass_at_k(4, 2, 5),
        lambda: pass_at_k(4, 5, 2),
        lambda: pass_at_k(4, 2, 0),
    ],
)
def test_bad_input_is_a_data_error(call: object) -> None:
    with pytest.raises(DataError) as caught:
        call()  # type: ignore[operator]
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_import_is_light() -> None:
    code = "import sys, vold.evals.stats; print(any(m in sys.modules for m in ('scipy', 'torch', 'numpy')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "False"
