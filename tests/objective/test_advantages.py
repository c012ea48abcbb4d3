"""Advantages and rollout weights against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vold.errors import DataError
from vold.objective.advantages import (
    action_runs,
    future_sums,
    group_relative,
    leave_one_out,
    mask_weights,
    overlong_penalty,
    step_weights,
    teacher_log_ratio,
    tool_reward,
)


def approx(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-12, abs=1e-14)


def test_one_pass_in_four_uses_the_sample_standard_deviation() -> None:
    # mean 1/4; sample variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4; std 1/2
    assert group_relative([1, 0, 0, 0], [0] * 4, eps=0.5) == approx([0.75, -0.25, -0.25, -0.25])


def test_two_passes_in_five() -> None:
    # mean 2/5; sample variance (2 * 9 + 3 * 4) / 25 / 4 = 3/10
    std = math.sqrt(0.3)
    got = group_relative([1, 0, 1, 0, 0], [3] * 5, eps=1e-6)
    assert got == approx([a / (std + 1e-6) for a in (0.6, -0.4, 0.6, -0.4, -0.4)])


def test_without_normalising_only_the_mean_goes() -> None:
    assert group_relative([1, 0, 0, 0], [0] * 4, "none") == approx([0.75, -0.25, -0.25, -0.25])


def test_groups_are_compared_within_themselves_wherever_their_members_stand() -> None:
    assert group_relative([1, 0.5, 0, 0.7], [0, 9, 0, 9], "none") == approx([0.5, -0.1, -0.5, 0.1])
    assert leave_one_out([1, 0.5, 0, 0.7], [0, 9, 0, 9]) == approx([1, -0.2, -1, 0.2])


@pytest.mark.parametrize("score", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_group_of_equal_scores_gets_exactly_zero(score: float, size: int) -> None:
    zeros = [0.0] * size
    assert group_relative([score] * size, [0] * size) == zeros
    assert group_relative([score] * size, [0] * size, "none") == zeros
    assert leave_one_out([score] * size, [0] * size) == zeros


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    assert leave_one_out([1, 0, 0, 0.5], [0] * 4) == approx([1 - 0.5 / 3, -0.5, -0.5, 0.5 - 1 / 3])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=20))
def test_advantages_of_a_group_add_up_to_zero(rows: list[tuple[float, int]]) -> None:
    scores, group = [r[0] for r in rows], [r[1] for r in rows]
    for advantages in (group_relative(scores, group), leave_one_out(scores, group)):
        for g in set(group):
            assert sum(a for a, h in zip(advantages, group, strict=True) if h == g) == pytest.approx(0, abs=1e-9)


def test_the_teacher_reward_is_teacher_minus_student() -> None:
    assert teacher_log_ratio([-1.0, -3.0], [-1.5, -0.5]) == approx([0.5, -2.5])
    with pytest.raises(ValueError, match="equally long"):
        teacher_log_ratio([-1.0], [-1.0, -2.0])


def test_rollout_weights_follow_the_score() -> None:
    scores, groups = [1.0, 0.0, 0.25, 0.0, 0.0], [0, 0, 1, 1, 2]
    assert mask_weights("none", scores, groups) == [1.0] * 5
    assert mask_weights("failed", scores, groups) == [0.0, 1.0, 0.75, 1.0, 1.0]
    assert mask_weights("passed", scores, groups) == [1.0, 0.0, 0.25, 0.0, 0.0]
    assert mask_weights("zero_score", scores, groups) == [0.0, 1.0, 0.0, 1.0, 1.0]
    assert mask_weights("group_failed", scores, groups) == [0.0, 0.0, 0.75, 0.75, 1.0]


@pytest.mark.parametrize("score", [-1.0, 1.5, math.nan])
def test_a_score_outside_zero_to_one_cannot_be_a_weight(score: float) -> None:
    with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
        mask_weights("failed", [0.0, score], [0, 0])


def test_scores_and_groups_must_pair_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        group_relative([1.0], [0, 0])


# -- SOD --------------------------------------------------------------------------------------------------------------


def test_steps_are_runs_of_the_models_own_tokens() -> None:
    assert action_runs([0, 1, 1, 0, 0, 1, 1]) == [range(1, 3), range(5, 7)]
    assert action_runs([0, 0]) == action_runs([]) == []


def product_form(drifts: list[float], eps: float, delta: float) -> list[float]:
    """SOD Eq. 7 as written: a running product, clipped only where it is given out."""
    out, running = [1.0], 1.0
    for before, now in itertools.pairwise(drifts):
        running *= (before + eps) / (now + eps)
        out.append(min(running, 1 + delta))
    return out


def test_step_weights_follow_the_drift_by_hand() -> None:
    """Steps with mean gaps 0.5, 1 and 0.25: weights 1, 1/2 and min(2, 1.2); a tool's tokens weigh nothing."""
    mask = [1, 1, 0, 1, 0, 0, 1, 1]
    student = [-1.0, -1.0, 0.0, -1.0, 0.0, 0.0, -1.0, -1.0]
    teacher = [-1.25, -0.25, math.nan, -2.0, math.nan, math.nan, -1.0, -1.5]
    got = step_weights(student, teacher, mask, eps=1e-12)
    assert got == pytest.approx([1, 1, 0, 0.5, 0, 0, 1.2, 1.2], rel=1e-9)
    assert step_weights(student, teacher, mask, eps=1e-12, delta=0.5)[6] == 1.5
    assert step_weights(student, teacher, mask, eps=1e-12, delta=3)[6] == pytest.approx(2.0)
    assert step_weights(student, teacher, mask, eps=0.5)[3] == pytest.approx(1.0 / 1.5)


def test_the_closed_form_is_the_papers_product() -> None:
    drifts, eps = [0.3, 0.9, 0.2, 0.31, 4.0], 1e-6
    mask = [1, 0] * 5
    student = [0.0] * 10
    teacher = [-drifts[i // 2] for i in range(10)]
    assert step_weights(student, teacher, mask)[::2] == pytest.approx(product_form(drifts, eps, 0.2), rel=1e-12)


def test_one_step_and_agreement_give_ones() -> None:
    assert step_weights([-1.0, -2.0], [-5.0, -0.1], [1, 1]).tolist() == [1.0, 1.0]
    assert step_weights([-1.0, 0.0, -2.0], [-1.0, 0.0, -2.0], [1, 0, 1]).tolist() == [1.0, 0.0, 1.0]


def test_tokens_the_teacher_failed_on_do_not_count_as_drift() -> None:
    # step 1: only the gap of 1 is known. Step 2 is not known at all and step 3 has 2.
    student, teacher = [0.0] * 6, [-1.0, math.nan, 0.0, math.nan, 0.0, -2.0]
    assert step_weights(student, teacher, [1, 1, 0, 1, 0, 1], eps=1e-12) == pytest.approx([1, 1, 0, 1, 0, 0.5])


# -- MiniLLM, DAPO and SOD's reward -----------------------------------------------------------------------------------


def test_future_sums_by_hand() -> None:
    rewards, mask = [1.0, 2.0, math.nan, 4.0], [1, 1, 0, 1]
    assert future_sums(rewards, mask).tolist() == [7.0, 6.0, 0.0, 4.0]
    assert future_sums(rewards, mask, from_next=True).tolist() == [6.0, 4.0, 0.0, 0.0]
    assert future_sums(rewards, mask, discount=0.5).tolist() == [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 0.0, 4.0]
    assert future_sums(rewards, mask, discount=0.5, from_next=True).tolist() == [2 + 0.5 * 4, 4.0, 0.0, 0.0]
    assert future_sums(rewards, mask, length_normalised=True).tolist() == [7 / 3, 3.0, 0.0, 4.0]
    assert future_sums(rewards, mask, from_next=True, length_normalised=True).tolist() == [3.0, 4.0, 0.0, 0.0]
    assert future_sums(rewards, mask, discount=0.0).tolist() == [1.0, 2.0, 0.0, 4.0]


def test_a_discount_by_position_counts_what_a_tool_wrote() -> None:
    """Rewards 1, 2 and 4 at places 0, 1 and 3 of which 2 is a tool's, discount 1/2: 1 + 2/2 + 4/8, 2 + 4/4 and 4."""
    rewards, mask = [1.0, 2.0, math.nan, 4.0], [1, 1, 0, 1]
    assert future_sums(rewards, mask, discount=0.5, per="position").tolist() == [2.5, 3.0, 0.0, 4.0]
    assert future_sums(rewards, mask, discount=0.5, per="position", from_next=True).tolist() == [3.0, 2.0, 0.0, 0.0]
    assert future_sums(rewards, mask, per="position").tolist() == future_sums(rewards, mask).tolist()
    one_turn = [math.sin(t) for t in range(99)]
    same = future_sums(one_turn, [1] * 99, discount=0.9, per="position")
    assert same.tolist() == future_sums(one_turn, [1] * 99, discount=0.9).tolist()


@pytest.mark.parametrize("discount", [1.0, 0.99, 0.5])
def test_future_sums_of_a_long_response_are_the_recurrence(discount: float) -> None:
    rewards, mask = [math.sin(t) for t in range(777)], [int(t % 5 != 3) for t in range(777)]
    expected, after = [0.0] * 777, 0.0
    for t in reversed(range(777)):
        if mask[t]:
            expected[t] = after = rewards[t] + discount * after
    assert future_sums(rewards, mask, discount=discount) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert future_sums([], []).tolist() == future_sums([], [], from_next=True).tolist() == []


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (140, -1.0)]
)
def test_the_overlong_penalty(length: int, penalty: float) -> None:
    assert overlong_penalty(length, 100, 20) == pytest.approx(penalty)
    assert overlong_penalty(length, 100, 20, factor=3.0) == pytest.approx(3 * penalty)


@pytest.mark.parametrize(
    ("reward", "calls", "shaped"),
    [
        (-1.0, 0, -1.0),
        (-1.0, 3, -0.7),
        (-1.0, 4, -0.6),
        (-1.0, 20, -0.6),
        (-0.2, 0, -0.6),
        (0.0, 5, 0.0),
        (1.0, 5, 1.0),
    ],
)
def test_tries_of_tools_soften_a_negative_reward_alone(reward: float, calls: int, shaped: float) -> None:
    assert tool_reward(reward, calls) == pytest.approx(shaped)


def test_the_bonus_and_its_ceiling_are_settings() -> None:
    assert tool_reward(-1.0, 2, per_call=0.2, ceiling=-0.1) == pytest.approx(-0.6)
    assert tool_reward(-1.0, 9, per_call=0.2, ceiling=-0.1) == pytest.approx(-0.1)
