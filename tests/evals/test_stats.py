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
from vold.evals.shares import ratio_interval, share_interval
from vold.evals.stats import (
    clustered_stderr,
    holm,
    mcnemar_exact,
    mean_stderr,
    min_detectable_difference,
    paired_difference,
    paired_t,
    pass_at_k,
    share_difference,
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


@pytest.mark.parametrize(
    ("a", "b", "bound", "p"),
    [
        ([0.52, 0.545], [0.50, 0.525], 1.0, 0.5),  # differences equal but for rounding; the sign test: 2^(1-n)
        ([0.6] * 5, [0.5] * 5, 1.0, 1 / 16),
        ([7.0, 9.0, 8.0], [5.0, 7.0, 6.0], math.inf, 0.25),
        ([0.3, 0.4, 0.5], [0.3, 0.4, 0.5], 1.0, 1.0),
    ],
)
def test_equal_differences_of_seeds_are_no_certainty(a: list[float], b: list[float], bound: float, p: float) -> None:
    found = paired_difference(a, b)
    assert (found.stderr, found.low, found.high, found.p_value) == (0.0, -bound, bound, p)


def test_the_t_interval_of_shares_ends_at_one() -> None:
    """Differences 0.5 and 0.9: mean 0.7, error 0.2, t(1) * 0.2 = 2.54; of other numbers it is left as it is."""
    assert (paired_t([0.9, 0.9], [0.4, 0.0]).low, paired_t([0.9, 0.9], [0.4, 0.0]).high) == (-1.0, 1.0)
    assert paired_t([9, 9], [4, 0]).high == pytest.approx(7 + 2 * math.tan(math.pi * 0.475))


def test_equal_values_have_no_t_interval() -> None:
    assert t_interval([0.5, 0.5, 0.5]) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n", "p"), [(2, 0.5), (5, 1 / 16), (6, 1 / 32)])
def test_all_pairs_won_prove_as_much_as_the_sign_test(n: int, p: float) -> None:
    """The interval holds 0 just where the sign test does not reject at 5%."""
    found = paired_difference([1] * n, [0] * n)
    assert (found.difference, found.high, found.p_value) == (1.0, 1.0, p)
    assert (found.low > 0) == (p < 0.05)


def test_one_more_pair_won_by_each_by_hand() -> None:
    """5 of 5 won: w = 6/7, l = 1/7, middle 5/7, error sqrt((1 - 25/49) / 7) = 0.264521; t(4) = 2.776445. Nothing won of
    4: w = l = 1/6, error sqrt(1/3 / 6) = 0.235702; t(3) = 3.182446."""
    assert share_difference([1] * 5, [0] * 5).low == pytest.approx(5 / 7 - 2.776445 * 0.264521, abs=1e-5)
    tied = share_difference([1, 0, 1, 0], [1, 0, 1, 0])
    assert (tied.low, tied.high, tied.p_value) == pytest.approx((-0.750110, 0.750110, 1.0), abs=1e-5)


def test_the_difference_of_graded_scores_by_hand() -> None:
    """Differences 1/2, 0, 0, 1/2: mean 1/4, variance 1/16. Pairs of which 1/4 is won have 1/4 - 1/16 = 3/16. With
    0.07/4 on both, 4 (0.1875 + 0.0175) / (0.0625 + 0.0175) = 10.25 pairs: w = 3.5625 / 12.25, l = 1 / 12.25."""
    found = share_difference([1, 0, 0.5, 0.5], [0.5, 0, 0.5, 0])
    w, lost = 3.5625 / 12.25, 1 / 12.25
    half = 3.182446 * math.sqrt((w + lost - (w - lost) ** 2) / 12.25)
    assert found.difference == 0.25
    assert (found.low, found.high) == pytest.approx((w - lost - half, w - lost + half), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_a_difference_of_shares_lies_between_minus_one_and_one(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    there, back = share_difference(a, b), share_difference(b, a)
    assert -1 <= there.low <= there.difference + 1e-9 and there.difference - 1e-9 <= there.high <= 1
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    assert (there.low > 0 or there.high < 0) <= (there.p_value <= 0.05 + 1e-9)


def test_holm_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and none below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == [0.8, 0.8] and holm([]) == []


@pytest.mark.parametrize("k", [0, 10, 50, 80, 100])
def test_one_answer_to_each_item_has_wilsons_interval(k: int) -> None:
    assert share_interval([1.0] * k + [0.0] * (100 - k)) == pytest.approx(wilson_interval(k, 100), rel=1e-12)


def test_few_wrong_reach_as_far_as_the_exact_limit() -> None:
    """19 of 20: with a rate r of wrong answers, one or more happen in 1 - (1 - r)^20 = 7% of cases."""
    low, high = share_interval([1.0] * 19 + [0.0])
    assert (low, high) == pytest.approx((wilson_interval(19, 20)[0], 0.93 ** (1 / 20)), rel=1e-9)
    assert share_interval([0.0] * 19 + [1.0]) == pytest.approx((1 - high, 1 - low), rel=1e-9)


def test_the_effective_number_by_hand() -> None:
    """Means 1/2, 1/2, 3/4 of 4 samples: share 7/12, p(1-p) = 35/144, spread (2/144 + 4/144) / 3 = 1/72. With 0.07/3 on
    both, 3 * 0.266389 / 0.037222 = 21.4701 items, and Wilson's interval with t(2) = 4.302653."""
    n, z, p = 3 * (35 / 144 + 0.07 / 3) / (1 / 72 + 0.07 / 3), 4.302653, 7 / 12
    assert n == pytest.approx(21.4701, abs=1e-4)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert share_interval([0.5, 0.5, 0.75]) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_items_that_are_all_alike_count_once_each() -> None:
    """10 clusters of 3, all right: as 10 items, but with t(9) = 2.262157: 10 / (10 + t^2)."""
    low, high = share_interval([1.0] * 30, [i // 3 for i in range(30)])
    assert (low, high) == pytest.approx((10 / (10 + 2.262157**2), 1.0), abs=1e-6)
    assert share_interval([1.0, 1.0], ["a", "a"]) == (0.0, 1.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_share_interval_holds_its_share(items: list[tuple[float, int]]) -> None:
    scores, clusters = zip(*items, strict=True)
    low, high = share_interval(scores, clusters)
    assert 0 <= low <= sum(scores) / len(scores) + 1e-9 and sum(scores) / len(scores) - 1e-9 <= high <= 1


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
        lambda: share_interval([]),
        lambda: share_interval([0.5, 1.5]),
        lambda: share_interval([1.0], ["a", "b"]),
        lambda: ratio_interval([1.0], [0.0]),
        lambda: ratio_interval([1.0], [1.0, 1.0]),
        lambda: share_difference([1, 2], [0, 0]),
        lambda: share_difference([1], [0, 0]),
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
