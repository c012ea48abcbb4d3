"""What every token is credited with, preset by preset, by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from vold.errors import AlignmentError, TeacherError
from vold.objective import Objective, credit, needs_teacher, value_means
from vold.objective.unscored import unscored
from vold.types import Completion, Grade, Rollout, TokenScores

NAN = math.nan
HALF = 0.5 / (math.sqrt(0.5) + 1e-6)
"""GRPO's advantage of the one that passed in a group of two."""


def make(method: str | None, **over: Any) -> Objective:
    return Objective.model_validate({"method": method, **over})


def rollout(
    score: float,
    gaps: list[float] | None,
    *,
    length: int = 0,
    group: int = 0,
    mask: list[int] | None = None,
    **more: Any,
) -> Rollout:
    """Behaviour log-probs of -1 and a teacher whose log-ratio to them is `gaps`."""
    n = length or len(gaps or ())
    completion = Completion(tuple(range(n)), (-1.0,) * n, tuple(mask or [1] * n), "stop", more.pop("candidates", None))
    teacher = None if gaps is None else TokenScores(tuple(g - 1 for g in gaps), **more.pop("scores", {}))
    return Rollout("t", group, (9,), completion, Grade(score, None, ""), teacher, **more)


def of(values: Any) -> tuple[float, ...]:
    """Numbers of the tokens of one rollout."""
    return tuple(values.tolist())


def advantages(objective: Objective, rollouts: list[Rollout], **more: Any) -> list[tuple[float, ...]]:
    return [of(r.advantage) for r in credit(objective, rollouts, 0, **more)]


def approx(*values: float) -> Any:
    """Equal to the precision of float32, in which log-probs of -1 and what is made of them are kept."""
    return pytest.approx(values, rel=1e-6, abs=1e-7)


def plain(method: str, **over: Any) -> Objective:
    """A preset without its outcome, to look at the teacher's part alone."""
    return make(method, outcome=None, **over)


# -- SOD --------------------------------------------------------------------------------------------------------------


def test_sod_weighs_each_step_by_the_drift_and_adds_it_to_grpo() -> None:
    """Steps with gaps (1, -1), 2 and 0.5: weights 1, 1/2 and 1.2. Signed rewards give the same GRPO advantage."""
    mask = [1, 1, 0, 1, 0, 1]
    rows = [rollout(0, [1, -1, 9, 2, 9, 0.5], mask=mask), rollout(1, [0.0])]
    o = make("sod", outcome={"tool_reward": None, "overlong": None}, teacher_advantage={"steps": {"eps": 1e-13}})
    # rewards -1 and 1: mean 0, sample std sqrt(2)
    base = -1 / (math.sqrt(2) + 1e-6)
    got = credit(o, rows, 0)
    assert of(got[0].advantage) == approx(base + 1, base - 1, 0, base + 1, 0, base + 0.6)
    assert of(got[0].token_values["step_weight"]) == approx(1, 1, 0, 0.5, 0, 1.2)
    assert of(got[1].advantage) == approx(-base)


def test_sods_library_reading_caps_at_one_and_a_half() -> None:
    rows = [rollout(0, [1, 9, 0.5], mask=[1, 0, 1])]
    assert advantages(plain("sod", reading="library"), rows)[0] == pytest.approx((1, 0, 0.75), rel=1e-5)
    assert advantages(plain("sod"), rows)[0] == pytest.approx((1, 0, 0.6), rel=1e-5)


def test_sods_reward_counts_tool_calls_and_length() -> None:
    """Budget 40, buffer 5% of it: 2 tokens. A wrong answer of 39 tokens with one call: -1 + 0.1 - 0.5."""
    mask = [1] * 20 + [0] + [1] * 18
    rows = [rollout(0, None, length=39, mask=mask), rollout(1, None, length=10), rollout(1, None, length=40)]
    got = credit(make("sod"), rows, 0, max_new_tokens=40)
    assert [r.rollout_values["reward"] for r in got] == approx(-1.4, 1.0, 0.0)
    mean, spread = -0.4 / 3, math.sqrt(((-1.4 + 0.4 / 3) ** 2 + (1 + 0.4 / 3) ** 2 + (0.4 / 3) ** 2) / 2)
    assert got[1].advantage is not None
    assert got[1].advantage[0] == pytest.approx((1 - mean) / (spread + 1e-6), rel=1e-12)


# -- Uni-OPD ----------------------------------------------------------------------------------------------------------


def uni(**margin: Any) -> Objective:
    return make("uni_opd", teacher_advantage={"balance": None, "margin": margin})


def test_uni_opd_moves_token_rewards_until_the_margin_is_there() -> None:
    """Returns 0.1 (correct) and 0.2: 0.5 is missing to 0.4, so 0.25 up and 0.25 down at every token of the model."""
    rows = [rollout(1, [0.3, -0.1, 9], mask=[1, 1, 0]), rollout(0, [0.2])]
    got = credit(uni(), rows, 0)
    assert of(got[0].advantage) == approx(0.55, 0.15, 0.0)
    assert of(got[1].advantage) == approx(-0.05)
    assert got[0].rollout_values == pytest.approx({"teacher_mask": 1.0, "return": 0.1, "shift": 0.25}, abs=1e-7)


def test_uni_opds_paper_broadcasts_the_moved_return() -> None:
    """Lowest correct 0.1 minus highest incorrect 0.2 is -0.1: the correct ones rise by 0.5, the others stay."""
    rows = [rollout(1, [0.3, -0.1]), rollout(1, [0.5]), rollout(0, [0.1, 0.3]), rollout(0, [-2.0])]
    o = make("uni_opd", reading="paper", teacher_advantage={"balance": None})
    got = advantages(o, rows)
    assert got[0] == approx(0.6, 0.6)
    assert got[1] == approx(1.0)
    assert got[2] == approx(0.2, 0.2)
    assert got[3] == approx(-2.0)


def test_uni_opds_mask_drops_the_offender_whole() -> None:
    rows = [rollout(1, [-3.0, -3.0]), rollout(1, [1.0]), rollout(0, [0.0])]
    got = credit(make("uni_opd", reading="mask", teacher_advantage={"balance": None}), rows, 0)
    assert [of(r.advantage) for r in got] == [(0.0, 0.0), (1.0,), (0.0,)]
    assert [r.rollout_values["margin_keep"] for r in got] == [0.0, 1.0, 1.0]


def test_balanced_out_rollouts_learn_nothing_but_still_count_in_the_returns() -> None:
    rows = [rollout(1, [0.4]), rollout(1, [0.0]), rollout(0, [0.0])]
    got = credit(make("uni_opd"), rows, 0, seed=1)
    kept = [r.rollout_values["balance"] for r in got]
    assert sorted(kept[:2]) == [0.0, 1.0] and kept[2] == 1.0
    assert [r.rollout_values["return"] for r in got] == approx(0.4, 0.0, 0.0)
    # the gap is 0.2 whichever was dropped, so 0.1 each
    assert [of(r.advantage) for r in got] == [
        approx(0.5 * kept[0]),
        approx(0.1 * kept[1]),
        approx(-0.1),
    ]
    assert [of(r.advantage) for r in credit(make("uni_opd"), rows, 0, seed=1)] == [of(r.advantage) for r in got]


def test_a_token_the_teacher_failed_on_has_no_reward() -> None:
    """Its R is 0 and stays in the mean, return (0.6 + 0) / 2; what it then would get is multiplied by 0, as in the
    released code: the shift of 0.05 is for the others."""
    rows = [rollout(1, [0.6, NAN]), rollout(0, [-math.inf, 0.0])]
    got = credit(uni(), rows, 0)
    assert got[0].rollout_values["return"] == pytest.approx(0.3)
    assert of(got[0].advantage) == approx(0.6 + 0.05, 0.0)
    assert of(got[1].advantage) == approx(0.0, -0.05)
    broadcast = advantages(uni(form="broadcast"), rows)
    assert broadcast == [approx(0.35, 0.0), approx(0.0, -0.05)]
    assert advantages(make("opd"), [rollout(1, [0.6, NAN])]) == [approx(0.6, 0.0)]
    assert [unscored(r) for r in got] == [1, 1]


def test_a_token_that_is_not_aligned_is_out_of_the_mean_and_gets_no_shift() -> None:
    """Returns 0.6, not 0.3, and 0.6 again: no margin is missing on the one, and its second token has nothing at all."""
    got = credit(uni(), [rollout(1, [0.6, NAN], scores={"aligned": (True, False)}), rollout(0, [0.6])], 0)
    assert got[0].rollout_values["return"] == pytest.approx(0.6)
    assert got[0].advantage is not None and got[0].advantage[0] > 0.6 and got[0].advantage[1] == 0.0


def test_the_teacher_loss_leaves_failed_tokens_out_and_counts_them() -> None:
    (got,) = credit(make("vold"), [rollout(0, [0.6, NAN, 0.0], mask=[1, 1, 0])], 0)
    assert of(got.teacher_weight) == (1.0, 0.0, 0.0)
    assert unscored(got) == 1


def test_tokens_that_a_teacher_has_no_token_for_have_not_failed() -> None:
    """Nor have those that a tool wrote, or those of a rollout that the teacher was not asked about."""
    rows = [rollout(0, [0.6, NAN], scores={"aligned": (True, False)}), rollout(0, [0.6, NAN], mask=[1, 0])]
    got = credit(make("vold"), [*rows, rollout(0, None, length=2)], 0)
    assert [unscored(r) for r in got] == [0, 0, 0]


@pytest.mark.parametrize("method", ["vold", "kdrl", "hypereyes"])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_token_that_the_teacher_holds_for_impossible_is_named(method: str, estimator: str) -> None:
    rows = [rollout(1, [0.5]), rollout(0, [0.1, 0.2, -math.inf, -math.inf], group=3)]
    objective = make(method, teacher_loss={"estimator": estimator})
    with pytest.raises(TeacherError) as caught:
        credit(objective, rows, 0, token_texts=lambda ids: [f"<{i}>" for i in ids])
    said = str(caught.value)
    assert "task t, rollout 1 of the step (group 3), token 2 of 4" in said
    assert "log-prob -inf for id 2 '<2>', and 1 more tokens" in said
    assert "method: opd" in said and "learning rate" not in said
    with pytest.raises(TeacherError, match="for id 2"):
        credit(objective, rows, 0)


def test_a_token_without_a_weight_may_be_impossible() -> None:
    """A tool's, one of a rollout that passed, and any under a loss over the vocabulary, which does not compare it."""
    rows = [rollout(0, [0.1, -math.inf], mask=[1, 0]), rollout(1, [-math.inf])]
    assert [of(r.teacher_weight) for r in credit(make("vold"), rows, 0)] == [(1.0, 0.0), (0.0,)]
    (got,) = credit(make("gkd", mix=None), [rollout(0, [-math.inf])], 0)
    assert of(got.teacher_weight) == (1.0,)


# -- Prefix-Teach -----------------------------------------------------------------------------------------------------


def split(ids: Any) -> list[str]:
    return ["x." if i % 2 else " y" for i in ids]


def prefix_rollout(margins: list[float]) -> Rollout:
    """Two tokens a sentence; the teacher's best two candidates differ by `margins`."""
    n = len(margins)
    scores = {"candidate_logp": tuple((-1.0 - m, -1.0, -9.0) for m in margins)}
    return rollout(0, [0.5] * n, scores=scores, candidates=((1, 2, 3),) * n)


def test_the_teacher_speaks_up_to_the_cut() -> None:
    """Sentence means 3, 3, 1, 1 (of 2 and 4, of 0 and 2): cut after the second. K = 2 leaves out the third token."""
    o = plain("prefix_teach", teacher_advantage={"prefix": {"top_k": 2, "boundary": r"\."}})
    (got,) = credit(o, [prefix_rollout([2, 4, 2, 4, 0, 2, 0, 2])], 0, token_texts=split)
    assert of(got.advantage) == (0.5,) * 4 + (0.0,) * 4
    assert of(got.token_values["prefix"]) == (1.0,) * 4 + (0.0,) * 4
    assert of(got.token_values["candidate_margin"]) == approx(2, 4, 2, 4, 0, 2, 0, 2)
    assert got.rollout_values["cut"] == 4 and got.rollout_values["segments"] == 4
    assert got.rollout_values["cut_gain"] > 0


def test_a_response_without_a_cut_is_taught_whole() -> None:
    o = plain("prefix_teach", teacher_advantage={"prefix": {"top_k": 2, "boundary": r"\."}})
    (got,) = credit(o, [prefix_rollout([0, 2, 0, 2, 2, 4, 2, 4])], 0, token_texts=split)
    assert of(got.advantage) == (0.5,) * 8
    assert got.rollout_values["cut"] == 8


def test_candidates_the_teacher_did_not_score_are_an_error() -> None:
    with pytest.raises(AlignmentError, match="candidates"):
        credit(plain("prefix_teach"), [rollout(0, [0.5])], 0, token_texts=split)
    with pytest.raises(ValueError, match="token_texts"):
        credit(plain("prefix_teach"), [rollout(0, [0.5])], 0)


# -- MOPD, MiniLLM, KDRL, DAPO, Dr. GRPO ------------------------------------------------------------------------------


def test_mopd_leaves_the_teachers_reward_to_the_update() -> None:
    rows = [rollout(1, [0.5, NAN, 0.2], mask=[1, 1, 0]), rollout(0, [0.5])]
    got = credit(make("mopd", teacher_advantage={"coefficient": 2.0}), rows, 0)
    assert of(got[0].advantage) == approx(HALF, HALF, 0.0)
    assert of(got[0].live_weight) == (2.0, 0.0, 0.0)
    assert of(got[1].live_weight) == (2.0,)


def test_minillm_credits_what_follows() -> None:
    """Rewards 1, 2, (a tool's), 4: normalised sums of the later ones are 3, 4 and 0. The loss weighs every token 1."""
    (got,) = credit(make("minillm"), [rollout(0, [1, 2, 9, 4], mask=[1, 1, 0, 1])], 0)
    assert of(got.advantage) == approx(3, 4, 0, 0)
    assert of(got.teacher_weight) == (1.0, 1.0, 0.0, 1.0)
    assert of(got.token_values["future_reward"]) == approx(3, 4, 0, 0)
    (sampled,) = credit(make("minillm", reading="sampled"), [rollout(0, [1, 2, 9, 4], mask=[1, 1, 0, 1])], 0)
    assert sampled.advantage == approx(7, 6, 0, 4)


def test_kdrls_reward_reading_adds_the_log_ratio_to_the_token() -> None:
    got = advantages(make("kdrl", reading="reward"), [rollout(1, [2.0]), rollout(0, [1.0])])
    assert got == [approx(HALF + 5e-3 * 2), approx(-HALF + 5e-3)]


def test_dapo_penalises_length_and_dr_grpo_does_not_scale() -> None:
    """Budget 10, buffer 2: nine tokens cost 0.5. Rewards 1 and -1.5: mean -0.25."""
    rows = [rollout(1, None, length=3), rollout(0, None, length=9)]
    got = credit(make("dapo", outcome={"normalise": "none"}), rows, 0, max_new_tokens=10)
    assert of(got[0].advantage) == approx(*[1.25] * 3)
    assert advantages(make("dr_grpo"), rows)[0] == approx(*[0.5] * 3)


# -- mixtures, and who is asked ---------------------------------------------------------------------------------------


def test_the_teachers_traces_are_weighed_to_their_share_and_stay_out_of_groups() -> None:
    """λ = 1/4 with 2 tokens of the student and 6 of the teacher, 8 in all: factors 8/4/2 = 1 and 8 · 3/4 / 6 = 1. With
    λ = 1/2 they are 2 and 2/3."""
    rows = [rollout(0, [0.5, 0.5]), rollout(1, [0.1] * 6, group=0, source="teacher")]
    for share, mine, theirs in ((0.25, 1.0, 1.0), (0.5, 2.0, 2 / 3), (1.0, 4.0, 0.0)):
        got = credit(make("gkd", mix={"student_share": share}), rows, 0)
        assert of(got[0].teacher_weight) == approx(mine, mine)
        assert of(got[1].teacher_weight) == approx(*[theirs] * 6)
    by_rollout = credit(make("gkd", teacher_loss={"aggregate": "sequence_mean"}), [*rows, rows[0]], 0)
    assert of(by_rollout[0].teacher_weight) == approx(0.75, 0.75)  # 3 rollouts, 2 of the student: 3/2/2
    assert of(by_rollout[1].teacher_weight) == approx(*[1.5] * 6)
    both = make("gkd", outcome={}, surrogate={}, teacher_advantage={})
    got = credit(both, [rows[0], rollout(1, [0.5, 0.5]), rows[1]], 0)
    assert of(got[0].advantage) == approx(-HALF + 0.5, -HALF + 0.5)
    assert of(got[2].advantage) == (0.0,) * 6


def test_only_the_mask_decides_who_is_asked() -> None:
    rows = [rollout(s, None, length=1) for s in (1.0, 1.0, 0.0)]
    assert needs_teacher(make("uni_opd"), rows) == [True] * 3
    assert needs_teacher(make("uni_opd", teacher_advantage={"mask": "failed"}), rows) == [False, False, True]


def test_kept_values_have_means_over_rollouts_or_over_the_models_own_tokens() -> None:
    rows = [
        rollout(0, [1.0] * 3, mask=[1, 0, 1], rollout_values={"cut": 2.0}, token_values={"w": (1.0, 9.0, NAN)}),
        rollout(0, [1.0], rollout_values={"cut": 4.0, "odd": math.inf}, token_values={"w": (0.5,)}),
    ]
    assert value_means(rows) == {"mean_cut": 3.0, "mean_w": 0.75}
    assert value_means([rollout(0, [1.0])]) == {}


def test_crediting_changes_nothing_else() -> None:
    row = rollout(0, [0.5])
    (got,) = credit(make("vold"), [row], 0)
    fresh = {"advantage", "live_weight", "teacher_weight", "token_values", "rollout_values"}
    kept = [f.name for f in dataclasses.fields(Rollout) if f.name not in fresh]
    assert [getattr(got, n) for n in kept] == [getattr(row, n) for n in kept]


def test_what_is_credited_is_float32_and_read_only() -> None:
    (got,) = credit(make("sod"), [rollout(0, [1, 9, 0.5], mask=[1, 0, 1])], 0, max_new_tokens=8)
    for values in (got.advantage, got.live_weight, got.teacher_weight, *got.token_values.values()):
        assert values is not None and values.dtype == "float32" and values.shape == (3,)
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1.0
