"""Uni-OPD's balancing, margin shift and margin mask, by hand."""

from __future__ import annotations

import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vold.objective.uni_opd import balance, margin_mask, margin_shift

approx = pytest.approx


@pytest.mark.parametrize(
    ("right", "wrong", "ratio", "kept_right", "kept_wrong"),
    [  # floor(n_wrong ratio) right and floor(n_right / ratio) wrong may stay
        (6, 2, 1.0, 2, 2),
        (2, 6, 1.0, 2, 2),
        (6, 4, 0.5, 2, 4),  # 12 wrong may stay, there are four
        (4, 6, 2.0, 4, 2),
        (5, 3, 1.5, 4, 3),
        (3, 9, 0.3, 2, 9),  # floor(2.7) = 2 right; 3 / 0.3 is 10 wrong
        (5, 3, 0, 0, 3),
        (5, 3, "correct_only", 5, 0),
        (1, 1, 0.3, 1, 1),  # floor(0.3) would leave no right one: all stay
        (1, 2, 3.0, 1, 2),  # nor floor(1 / 3) a wrong one
        (4, 2, 0.4, 4, 2),
        (8, 0, 1.0, 8, 0),  # one class alone stays as it is
        (0, 8, 0.5, 0, 8),
        (8, 0, 0, 8, 0),
    ],
)
def test_balancing_keeps_so_many(
    right: int, wrong: int, ratio: float | Literal["correct_only"], kept_right: int, kept_wrong: int
) -> None:
    scores = [1.0] * right + [0.0] * wrong
    keep = balance(scores, [0] * len(scores), ratio=ratio)
    assert sum(keep[:right]) == kept_right
    assert sum(keep[right:]) == kept_wrong
    assert set(keep) <= {0.0, 1.0}


def test_balancing_depends_on_the_seed_alone_and_every_rollout_can_go() -> None:
    scores, groups = [1.0] * 6 + [0.0] * 2, [3] * 8
    assert balance(scores, groups, seed=5) == balance(scores, groups, seed=5)
    random.seed(0)
    assert balance(scores, groups, seed=5) == balance(scores, groups, seed=5)
    dropped = {i for seed in range(60) for i, k in enumerate(balance(scores, groups, seed=seed)) if k == 0}
    assert dropped == set(range(6))


def test_groups_are_balanced_apart_and_a_global_scope_together() -> None:
    scores = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5]
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    apart = balance(scores, groups)
    assert sum(apart[:3]) == 1 and apart[3:] == [1.0] * 5  # the second group has no correct one
    together = balance(scores, groups, scope="global")
    assert together[:3] == [1.0] * 3 and sum(together[3:]) == 3  # a score of 0.5 is not correct


RETURNS = [-0.2, -0.4, -0.1, -0.3]
"""Two correct, two incorrect: mean -0.3 against -0.2, lowest correct -0.4 against highest incorrect -0.1."""
SCORES = [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("statistic", "direction", "shift"),
    [  # the gap of means is -0.1, so 0.5 is missing to 0.4; that of extremes is -0.3, so 0.7 is missing
        ("mean", "both", [0.25, 0.25, -0.25, -0.25]),
        ("mean", "correct_up", [0.5, 0.5, 0.0, 0.0]),
        ("mean", "incorrect_down", [0.0, 0.0, -0.5, -0.5]),
        ("minmax", "both", [0.35, 0.35, -0.35, -0.35]),
        ("minmax", "correct_up", [0.7, 0.7, 0.0, 0.0]),
        ("minmax", "incorrect_down", [0.0, 0.0, -0.7, -0.7]),
    ],
)
def test_the_shift_restores_the_margin(
    statistic: Literal["mean", "minmax"],
    direction: Literal["both", "correct_up", "incorrect_down"],
    shift: list[float],
) -> None:
    got = margin_shift(RETURNS, SCORES, [0] * 4, delta=0.4, statistic=statistic, direction=direction)
    assert got == approx(shift, abs=1e-12)


def test_a_margin_that_is_there_is_left_alone() -> None:
    assert margin_shift([0.5, -0.1], [1.0, 0.0], [0, 0], delta=0.4) == [0.0, 0.0]
    assert margin_shift([0.3, -0.1], [1.0, 0.0], [0, 0], delta=0.4) == approx([0.0, 0.0], abs=1e-12)


def test_a_class_alone_is_left_alone_and_groups_do_not_mix() -> None:
    returns, scores, groups = [-1.0, -2.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 1.0], [0, 0, 1, 2, 2]
    assert margin_shift(returns, scores, groups, delta=0.4) == approx([0.0, 0.0, 0.0, -0.2, 0.2])
    # over the step: correct (-1 - 2 + 0) / 3 = -1, incorrect 0.25, so 1.65 is missing
    assert margin_shift(returns, scores, groups, delta=0.4, scope="global") == approx(
        [0.825, 0.825, -0.825, -0.825, 0.825]
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.sampled_from([0.0, 1.0])), min_size=2, max_size=8),
    st.floats(0, 2),
    st.sampled_from(["both", "correct_up", "incorrect_down"]),
)
def test_the_gap_is_the_margin_exactly_where_it_was_below(
    rows: list[tuple[float, float]], delta: float, direction: Literal["both", "correct_up", "incorrect_down"]
) -> None:
    returns, scores = [r for r, _ in rows], [s for _, s in rows]
    shift = margin_shift(returns, scores, [0] * len(rows), delta=delta, direction=direction)
    right = [i for i, s in enumerate(scores) if s == 1]
    wrong = [i for i, s in enumerate(scores) if s == 0]
    if not right or not wrong:
        assert shift == [0.0] * len(rows)
        return

    def gap(values: list[float]) -> float:
        return sum(values[i] for i in right) / len(right) - sum(values[i] for i in wrong) / len(wrong)

    moved = [a + b for a, b in zip(returns, shift, strict=True)]
    assert gap(moved) == approx(max(delta, gap(returns)), abs=1e-9)


def test_the_mask_drops_whoever_widens_the_gap_more() -> None:
    # correct -1, 0; incorrect 0.2, -0.5, -0.6: gap -0.5 + 0.3 = -0.2. Without correct -1 it is 0.3, without incorrect
    # 0.2 it is 0.05: -1 goes. Then 0.3 < 0.4, no correct one may go, and without 0.2 it is 0.55: done.
    returns, scores = [-1.0, 0.0, 0.2, -0.5, -0.6], [1.0, 1.0, 0.0, 0.0, 0.0]
    assert margin_mask(returns, scores, [0] * 5, delta=0.4) == [0.0, 1.0, 0.0, 1.0, 1.0]
    assert margin_mask(returns, scores, [0] * 5, delta=0.25) == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert margin_mask(returns, scores, [0] * 5, delta=-1) == [1.0] * 5


def test_the_mask_leaves_a_quarter_of_each_class() -> None:
    returns = [float(i) for i in range(8)] + [20.0 + i for i in range(8)]
    keep = margin_mask(returns, [1.0] * 8 + [0.0] * 8, [0] * 16, delta=5)
    assert keep == [0.0] * 6 + [1.0] * 2 + [1.0] * 2 + [0.0] * 6
    assert margin_mask([0.0, 1.0], [1.0, 0.0], [0, 0], delta=5) == [1.0, 1.0]  # the only one of its class stays


@pytest.mark.parametrize(("size", "stay"), [(1, 1), (3, 1), (5, 1), (7, 1), (8, 2), (11, 2), (12, 3)])
def test_a_quarter_is_rounded_down_and_at_least_one(size: int, stay: int) -> None:
    returns = [float(i) for i in range(size)] + [100.0]
    assert sum(margin_mask(returns, [1.0] * size + [0.0], [0] * (size + 1), delta=5)[:size]) == stay


def test_the_mask_stops_where_nothing_improves() -> None:
    assert margin_mask([0.0] * 4, SCORES, [0] * 4, delta=0.4) == [1.0] * 4


def test_the_mask_looks_at_extremes_where_asked() -> None:
    # extremes: -0.4 against -0.1. Dropping -0.4 gives -0.1, dropping -0.1 gives -0.1 too: the correct one goes first.
    assert margin_mask(RETURNS, SCORES, [0] * 4, delta=0.05, statistic="minmax") == [1.0, 0.0, 0.0, 1.0]
