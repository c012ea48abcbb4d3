"""Weights and masks of published methods, on values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from vold.objective import Denominators, Objective, Streams, credit, needs_teacher, total
from vold.objective.gates import prefix_drift, sign_gate, tag_at_least, tag_below, visual_advantage
from vold.types import Completion, Grade, Rollout, TokenScores

NAN = math.nan


def rollout(
    teacher: list[float] | None,
    student: list[float] | None = None,
    *,
    score: float = 0.0,
    mask: list[int] | None = None,
    **more: Any,
) -> Rollout:
    """Of a student that gives every token -1 unless told otherwise."""
    n = len(teacher or student or ())
    completion = Completion(tuple(range(n)), tuple(student or [-1.0] * n), tuple(mask or [1] * n), "stop")
    scores = None if teacher is None else TokenScores(tuple(teacher))
    return Rollout("t", more.pop("group", 0), (9,), completion, Grade(score, None, ""), scores, **more)


def lists(weights: Any) -> list[list[float]]:
    return [np.asarray(w).tolist() for w in weights]


def test_the_weight_falls_as_models_have_drifted_apart() -> None:
    """Gaps 1, 0, 3: of 4 in all 0, 1 and 1 lie before each token: 1.5, 1 + 0.5 · 3/4 twice."""
    assert lists(prefix_drift([rollout([0.0, -1.0, -4.0])])) == [pytest.approx([1.5, 1.375, 1.375])]
    assert lists(prefix_drift([rollout([0.0, -1.0, -4.0])], gamma=2.0)) == [pytest.approx([3.0, 2.5, 2.5])]
    assert lists(prefix_drift([rollout([-1.0, -1.0])])) == [[1.5, 1.5]]  # no drift


def test_what_a_tool_wrote_and_what_has_no_score_is_no_drift() -> None:
    """Gaps 2, (a tool's 9), not a number, 2."""
    (got,) = lists(prefix_drift([rollout([1.0, 8.0, NAN, -3.0], mask=[1, 0, 1, 1])]))
    assert got == pytest.approx([1.5, 1.25, 1.25, 1.25])
    assert lists(prefix_drift([rollout(None, [-1.0])])) == [[1.5]]


def test_the_gate_opens_where_teacher_and_verdict_agree() -> None:
    up, down, same = 0.0, -2.0, -1.0
    passed, failed = rollout([up, down, same], score=1.0), rollout([up, down, same], score=0.0)
    assert lists(sign_gate([passed, failed])) == [[1.25, 0.75, 0.75], [0.75, 1.25, 0.75]]
    assert lists(sign_gate([passed], agree=2.0, differ=0.0)) == [[2.0, 0.0, 0.0]]
    assert lists(sign_gate([rollout([NAN], score=1.0), rollout(None, [-1.0], score=1.0)])) == [[0.75], [0.75]]


def test_the_tokens_that_the_picture_matters_to_have_half_of_the_weight() -> None:
    """VA 0, 4, 0 (the picture makes it less likely), 1: a fifth of 4 tokens, rounded up, is one, which has half of 4;
    the other three share the rest. One rollout alone has the weight 1."""
    row = rollout([-1.0, -1.0, -5.0, -1.0], contrast_logp=(-1.0, -5.0, -1.0, -2.0))
    assert lists(visual_advantage([row])) == [pytest.approx([2 / 3, 2.0, 2 / 3, 2 / 3])]
    half = lists(visual_advantage([row], share=0.5, high=1.0))
    assert half == [pytest.approx([0.0, 2.0, 0.0, 2.0])]


def test_rollouts_that_see_more_weigh_more_within_their_group() -> None:
    """Mean VA 2 and 0: standardised 1 and -1 (population deviation 1), so e : 1/e of a group of two."""
    seen = rollout([-1.0, -1.0], contrast_logp=(-3.0, -3.0))
    blind = rollout([-1.0, -1.0], contrast_logp=(-1.0, -1.0))
    alone = rollout([-1.0, -1.0], contrast_logp=(-9.0, -1.0), group=1)
    got = lists(visual_advantage([seen, blind, alone]))
    more = 2 * math.e / (math.e + 1 / math.e)
    assert got[0] == pytest.approx([more, more], rel=1e-5)
    assert got[1] == pytest.approx([2 - more, 2 - more], rel=1e-5)
    assert got[2] == pytest.approx([1.0, 1.0])  # one token of two is in each part
    flat = lists(visual_advantage([seen, blind], temperature=1e9))
    assert np.allclose(flat, 1.0)


def test_what_the_picture_speaks_against_and_what_a_tool_wrote_see_nothing() -> None:
    """Mean VA 1 (2 and none for -4) against 0.5, and 1 (a tool's 9 left out) against 2."""
    first = [rollout([-1.0, -5.0], contrast_logp=(-3.0, -1.0)), rollout([-1.0, -1.0], contrast_logp=(-1.5, -1.5))]
    tool = rollout([-1.0, -1.0], mask=[1, 0], contrast_logp=(-2.0, -10.0), group=1)
    other = rollout([-1.0], contrast_logp=(-3.0,), group=1)
    totals = [float(np.sum(w)) for w in visual_advantage([*first, tool, other])]
    assert totals[0] > 2 > totals[1]
    assert totals[2] < 1 < totals[3]


def test_a_tools_tokens_are_no_ones_and_a_single_token_has_all() -> None:
    row = rollout([-1.0, -1.0, -1.0], mask=[0, 1, 0], contrast_logp=(-9.0, -2.0, -9.0))
    assert lists(visual_advantage([row])) == [[0.0, 1.0, 0.0]]
    assert lists(visual_advantage([rollout([-1.0, -1.0])])) == [pytest.approx([1.0, 1.0])]


def test_a_tag_says_whom_to_trust() -> None:
    rows = [rollout([-1.0], tags={"correct": v}) for v in ("4", "3.5", "many")] + [rollout([-1.0])]
    assert tag_at_least(rows, tag="correct", value=4) == [1.0, 0.0, 0.0, 0.0]
    assert tag_below(rows, tag="correct", value=4) == [0.0, 1.0, 1.0, 1.0]


# -- the presets that use them ----------------------------------------------------------------------------------------


def make(method: str, **over: Any) -> Objective:
    return Objective.model_validate({"method": method, **over})


def advantages(o: Objective, rows: list[Rollout]) -> list[list[float]]:
    return [r.advantage.tolist() for r in credit(o, rows, 0) if r.advantage is not None]


def test_what_training_has_made_of_the_teacher_is_the_reward() -> None:
    """Direct-OPD: log π_T - log π_base = 0.5 and -2, whatever the student thinks. ExOPD, λ = 1.25: 1.25 · 0.5 less
    -1 + 1.5, and 1.25 · -2 less -1 + 1."""
    row = rollout([-1.0, -3.0], contrast_logp=(-1.5, -1.0))
    assert advantages(make("direct_opd"), [row]) == [pytest.approx([0.5, -2.0])]
    assert advantages(make("exopd"), [row]) == [pytest.approx([0.125, -2.5])]
    (got,) = credit(make("exopd"), [row], 0)
    assert got.token_values["policy_shift"].tolist() == pytest.approx([0.5, -2.0])


def test_extrapolation_by_one_is_plain_distillation() -> None:
    row = rollout([-0.2, -3.0], [-0.7, -1.9], contrast_logp=(-1.5, -1.0))
    plain = make("exopd", teacher_advantage={"extrapolation": 1.0})
    assert advantages(plain, [row]) == [pytest.approx(a) for a in advantages(make("opd"), [row])]


def test_a_token_that_the_base_has_not_scored_has_no_reward() -> None:
    some = rollout([-1.0, -3.0], contrast_logp=(NAN, -1.0))
    assert advantages(make("direct_opd"), [some]) == [[0.0, -2.0]]
    assert advantages(make("direct_opd"), [rollout([-1.0, -3.0])]) == [[0.0, 0.0]]


def test_a_reward_is_extrapolated_from_a_reference_alone() -> None:
    with pytest.raises(ValueError, match="extrapolated from a reference"):
        make("opd", teacher_advantage={"extrapolation": 1.5})


def test_iw_opd_multiplies_the_reward_by_its_weight() -> None:
    """Rewards 1, 0, -3 times 1.5, 1.375, 1.375."""
    assert advantages(make("iw_opd"), [rollout([0.0, -1.0, -4.0])]) == [pytest.approx([1.5, 0.0, -4.125])]
    wide = make("iw_opd", teacher_advantage={"weight_options": {"gamma": 0.0}})
    assert advantages(wide, [rollout([0.0, -1.0, -4.0])]) == [pytest.approx([1.0, 0.0, -3.0])]


def test_sg_opd_leads_further_where_the_verdict_agrees() -> None:
    assert advantages(make("sg_opd"), [rollout([0.0, -2.0], score=1.0)]) == [pytest.approx([1.25, -0.75])]


def test_a_problem_is_learnt_from_its_teacher_or_from_its_verdicts() -> None:
    """TGOPD. Solved by the teacher: the log-ratio 1 and no outcome. Not solved: ±1/√2 of a group of two, not asked."""
    trusted = [rollout([0.0], score=s, tags={"correct": "7"}) for s in (1.0, 0.0)]
    other = [rollout([0.0], score=s, tags={"correct": "2"}, group=1) for s in (1.0, 0.0)]
    o, half = make("tgopd"), 1 / math.sqrt(2)
    assert needs_teacher(o, trusted + other) == [True, True, False, False]
    assert advantages(o, trusted + other) == [[1.0], [1.0], [pytest.approx(half, 1e-5)], [pytest.approx(-half, 1e-5)]]


def test_opsa_pushes_every_token_down_and_asks_nobody() -> None:
    o = make("opsa")
    assert advantages(o, [rollout(None, [-0.5, -2.0], score=1.0), rollout(None, [-0.1])]) == [[-1.0, -1.0], [-1.0]]
    assert not o.uses_teacher
    assert o.needs.words == "nothing"


def loss_and_gradient(o: Objective, row: Rollout, divergence: torch.Tensor | None = None) -> tuple[float, list[float]]:
    """Of one rollout as the trainer has it, in float64."""
    (made,) = credit(o, [row], 0)
    assert made.advantage is not None and made.teacher_weight is not None
    n = len(made.completion.ids)

    def f64(values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values, np.float64))

    logp = f64(made.completion.logps).requires_grad_()
    teacher = made.teacher.logp if made.teacher is not None else [NAN] * n
    streams = Streams(
        logp, f64(made.completion.logps), f64(made.advantage), f64(teacher), f64(made.teacher_weight),
        sequence_index=torch.zeros(n, dtype=torch.int64), sequence_length=torch.full((n,), n), divergence=divergence,
    )  # fmt: skip
    per_rollout = o.teacher_loss is not None and o.teacher_loss.aggregate == "sequence_mean"
    count = 1 if per_rollout else n
    loss, _ = total(o, streams, Denominators(surrogate=count, teacher_loss=count), 0)
    (gradient,) = torch.autograd.grad(loss, divergence if divergence is not None else logp)
    return loss.item(), gradient.tolist()


@pytest.mark.parametrize(
    ("method", "rewards"),
    [
        ("exopd", [0.125, -2.5]),
        ("direct_opd", [0.5, -2.0]),
        ("iw_opd", [0.0, -2.0 * 1.5]),  # no drift before the second token
        ("sg_opd", [0.0, -2.0 * 1.25]),  # less likely, in a failed rollout
        ("sdpo", [0.0, -2.0]),
        ("opsa", [-1.0, -1.0]),
    ],
)
def test_the_gradient_of_a_step_is_the_policy_gradient_of_its_rewards(method: str, rewards: list[float]) -> None:
    """On-policy: the loss is -mean R_t, its gradient by log π_θ is -R_t / 2."""
    loss, gradient = loss_and_gradient(make(method), rollout([-1.0, -3.0], contrast_logp=(-1.5, -1.0)))
    assert loss == pytest.approx(-sum(rewards) / 2, rel=1e-6)
    assert gradient == pytest.approx([-r / 2 for r in rewards], rel=1e-6)


def test_va_opd_averages_within_the_two_parts() -> None:
    """VA 4 on the second of three tokens. 0.5 · D_2 + 0.5 · (D_1 + D_3) / 2, of divergences 1, 2 and 4."""
    d = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    row = rollout([-1.0, -1.0, -1.0], contrast_logp=(-1.0, -5.0, -1.0))
    loss, gradient = loss_and_gradient(make("va_opd"), row, d)
    assert loss == pytest.approx(0.5 * 2 + 0.5 * (1 + 4) / 2)
    assert gradient == pytest.approx([0.25, 0.5, 0.25])


def test_opsd_is_the_jensen_shannon_divergence_of_every_token() -> None:
    d = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    loss, gradient = loss_and_gradient(make("opsd"), rollout([-1.0, -1.0]), d)
    assert loss == pytest.approx(1.5)
    assert gradient == pytest.approx([0.5, 0.5])
    term = make("opsd").teacher_loss
    assert term is not None and (term.estimator, term.teacher_share, term.mask) == ("jsd", 0.5, "none")
