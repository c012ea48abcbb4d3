"""The objective: presets, credit, denominators, and the sum of all terms, on steps small enough to do by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vold.errors import AlignmentError, ConfigError
from vold.objective import (
    PRESETS,
    Denominators,
    Objective,
    Streams,
    averages,
    credit,
    needs_teacher,
    token_counts,
    total,
)
from vold.objective.losses import SAMPLED
from vold.types import Completion, Grade, Rollout, TokenScores

NAN = math.nan
A = 0.5 / (math.sqrt(0.5) + 1e-6)
"""Advantage of the one that passed in a group of two: mean 1/2, sample std sqrt(1/2)."""


def make(method: str | None, **over: Any) -> Objective:
    return Objective.model_validate({"method": method, **over})


def rollout(
    score: float,
    logps: list[float],
    teacher: list[float] | None = None,
    *,
    group: int = 0,
    mask: list[int] | None = None,
) -> Rollout:
    completion = Completion(tuple(range(len(logps))), tuple(logps), tuple(mask or [1] * len(logps)), "stop")
    scores = None if teacher is None else TokenScores(tuple(teacher))
    return Rollout("t", group, (9,), completion, Grade(score, None, ""), scores)


def streams_of(objective: Objective, rollouts: list[Rollout], step: int = 0, shift: float = 0.0) -> Streams:
    """What a loop would hand over; the student's log-probs are the behaviour's plus `shift`."""
    columns: list[list[float]] = [[] for _ in range(7)]
    for i, r in enumerate(credit(objective, rollouts, step)):
        assert r.advantage is not None and r.teacher_weight is not None and r.live_weight is not None
        actions = [t for t, a in enumerate(r.completion.action_mask) if a]
        for t in actions:
            teacher = NAN if r.teacher is None else r.teacher.logp[t]
            row = (
                r.completion.logps[t],
                r.advantage[t],
                teacher,
                r.teacher_weight[t],
                i,
                len(actions),
                r.live_weight[t],
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    flat = [torch.tensor(c, dtype=torch.float64) for c in columns]
    return Streams((flat[0] + shift).requires_grad_(), *flat)


def advantages(objective: Objective, rollouts: list[Rollout], step: int = 0, **more: Any) -> list[tuple[float, ...]]:
    return [of(r.advantage) for r in credit(objective, rollouts, step, **more)]


def of(values: Any) -> tuple[float, ...]:
    """Numbers of the tokens of one rollout."""
    return tuple(values.tolist())


def run(objective: Objective, rollouts: list[Rollout], step: int = 0, shift: float = 0.0) -> tuple[float, Any, Any]:
    """Loss, gradient by the student's log-probs, and metrics of a step taken in one piece."""
    streams = streams_of(objective, rollouts, step, shift)
    loss, metrics = total(objective, streams, token_counts(objective, rollouts), step)
    (gradient,) = torch.autograd.grad(loss, streams.logp)
    return loss.item(), gradient.tolist(), {k: v.item() for k, v in metrics.items()}


def approx(value: Any) -> Any:
    """Equal to the precision of float32, in which credit is kept."""
    return pytest.approx(value, rel=1e-6, abs=1e-7)


def mixed_group() -> list[Rollout]:
    """One passes with two tokens; one fails with three, on which it is 1, 2 and 3 nats surer than the teacher."""
    return [rollout(1, [-1, -1], [-5, -5]), rollout(0, [-1, -1, -1], [-2, -3, -4])]


# -- presets ----------------------------------------------------------------------------------------------------------


def test_vold_is_grpo_plus_k2_on_failed_rollouts() -> None:
    o = make("vold")
    assert o.outcome is not None and (o.outcome.weight, o.outcome.normalise) == (1.0, "std")
    assert o.surrogate is not None and (o.surrogate.clip_low, o.surrogate.clip_high) == (0.2, 0.3)
    t = o.teacher_loss
    assert t is not None and (t.estimator, t.mask, t.aggregate, t.coefficient) == ("k2", "failed", "token_mean", 0.1)
    assert t.at(0) == t.at(1000) == 0.1
    assert o.teacher_advantage is None and o.nll is None and o.uses_teacher


def test_grpo_is_vold_without_its_teacher() -> None:
    o = make("grpo")
    assert o.model_dump(exclude={"method"}) == make("vold", teacher_loss=None).model_dump(exclude={"method"})
    assert not o.uses_teacher


def test_kdrl_anneals_an_unmasked_k2_loss() -> None:
    t = make("kdrl").teacher_loss
    assert t is not None and (t.estimator, t.mask) == ("k2", "none")
    assert [t.at(s) for s in (0, 20, 79)] == approx([5e-3, 4e-3, 1.05e-3])
    assert t.at(80) == approx(1e-3) and t.at(10_000) == 1e-3


def test_opd_is_the_teacher_as_an_unclipped_advantage() -> None:
    o = make("opd")
    assert o.teacher_advantage is not None and o.teacher_advantage.coefficient == 1.0
    assert o.surrogate is not None and (o.surrogate.clip_low, o.surrogate.clip_high) == (None, None)
    assert o.outcome is None and o.teacher_loss is None and o.uses_teacher


def test_sft_is_likelihood_alone() -> None:
    o = make("sft")
    assert o.nll is not None and o.surrogate is None and not o.uses_teacher


def test_a_key_beside_the_method_changes_that_key_alone() -> None:
    o = make("vold", teacher_loss={"coefficient": 0.5}, surrogate={"clip_high": 0.2})
    base = make("vold").model_dump()
    base["teacher_loss"]["coefficient"], base["surrogate"]["clip_high"] = 0.5, 0.2
    assert o.model_dump() == base
    assert PRESETS["vold"].terms["teacher_loss"]["coefficient"] == 0.1


@pytest.mark.parametrize("method", [*PRESETS])
def test_a_dumped_objective_reads_back_equal(method: str) -> None:
    o = make(method)
    assert Objective.model_validate_json(o.model_dump_json()) == o


def test_without_a_method_vold_is_meant_and_null_starts_from_nothing() -> None:
    assert Objective.model_validate({"teacher_loss": {"mask": "none"}}).surrogate == make("vold").surrogate
    assert make(None, nll={}).model_dump(exclude={"method"}) == make("sft").model_dump(exclude={"method"})


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"teacher_loss": {"estimator": "k1"}}, "zero mean"),
        ({"outcome": None}, "no advantage"),
        ({"surrogate": None}, "nothing uses the advantage of outcome"),
        ({"surrogate": None, "outcome": None, "teacher_loss": None}, "no loss"),
        ({"surrogate": {"clip_low": None}}, "only one side"),
        ({"teacher_loss": {"final_coefficient": 0.2}}, "upwards"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        make("vold", **over)
    assert isinstance(caught.value.errors()[0]["ctx"]["error"], ConfigError)


@pytest.mark.parametrize("over", [{"teacher": {}}, {"teacher_loss": {"beta": 1}}, {"method": "vuld"}, {"method": []}])
def test_unknown_keys_and_methods_are_validation_errors(over: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Objective.model_validate({"method": "vold", **over})


# -- who is asked, and credit -----------------------------------------------------------------------------------------


def test_the_teacher_is_asked_about_failed_rollouts_only() -> None:
    rows = [rollout(s, [-1], group=g) for s, g in ((1.0, 0), (0.0, 0), (0.5, 1), (0.0, 1))]
    assert needs_teacher(make("vold"), rows) == [False, True, True, True]
    assert needs_teacher(make("grpo"), rows) == [False] * 4
    assert needs_teacher(make("kdrl"), rows) == [True] * 4
    passed = make("opd", teacher_advantage={"mask": "passed"})
    assert needs_teacher(passed, rows) == [True, False, True, False]
    unsolved = make("vold", teacher_loss={"mask": "group_failed"})
    rows = [rollout(s, [-1], group=g) for s, g in ((1.0, 0), (0.0, 0), (0.0, 1), (0.0, 1))]
    assert needs_teacher(unsolved, rows) == [False, False, True, True]
    zero = make("hypereyes")
    assert needs_teacher(zero, [rollout(s, [-1]) for s in (1.0, 0.5, 0.0)]) == [False, False, True]


def test_a_rollout_without_teacher_scores_has_no_teacher_weight() -> None:
    rows = [rollout(0, [-1], [-2]), rollout(0, [-1]), rollout(0.25, [-1], [-2])]
    assert [of(r.teacher_weight) for r in credit(make("vold"), rows, 0)] == [(1.0,), (0.0,), (0.75,)]
    assert [of(r.teacher_weight) for r in credit(make("opd"), rows, 0)] == [(0.0,)] * 3


def test_credit_adds_outcome_and_teacher_on_the_models_own_tokens() -> None:
    o = make("vold", outcome={"weight": 2.0}, teacher_advantage={"coefficient": 0.5, "mask": "failed"})
    rows = [rollout(1, [-1, -1], [NAN, NAN]), rollout(0, [-1, -9, -1], [-2, NAN, -4], mask=[1, 0, 1])]
    got = advantages(o, rows)
    assert got[0] == approx((2 * A, 2 * A))
    assert got[1] == approx((-2 * A - 0.5, 0.0, -2 * A - 1.5))


def test_credit_of_opd_is_the_teachers_log_ratio_and_anneals() -> None:
    o = make("opd", teacher_advantage={"coefficient": 1.0, "final_coefficient": 0.25, "anneal_per_step": 0.5})
    rows = [rollout(0, [-1, -3], [-2, -1]), rollout(1, [-1])]
    assert advantages(o, rows, 0) == [(-1.0, 2.0), (0.0,)]
    assert advantages(o, rows, 1) == [(-0.5, 1.0), (0.0,)]
    assert advantages(o, rows, 9) == [(-0.25, 0.5), (0.0,)]


def test_a_graded_score_weighs_the_teachers_advantage() -> None:
    o = make("opd", teacher_advantage={"mask": "failed"})
    assert advantages(o, [rollout(0.75, [-1], [-3])]) == [(-0.5,)]


def test_credit_knows_three_ways_to_compare_a_group() -> None:
    rows = [rollout(s, [-1]) for s in (1, 0, 0, 0)]
    assert advantages(make("grpo", outcome={"eps": 0.5}), rows)[0] == approx((0.75,))  # sample std is 1/2
    assert advantages(make("grpo", outcome={"normalise": "none"}), rows)[0] == approx((0.75,))
    assert advantages(make("grpo", outcome={"normalise": "leave_one_out"}), rows)[0] == approx((1.0,))
    assert advantages(make("grpo", outcome={"eps": 1.0}), rows)[0] == approx((0.5,))


def test_teacher_scores_of_another_length_are_refused() -> None:
    with pytest.raises(AlignmentError, match="1 scores for 2 tokens"):
        credit(make("opd"), [rollout(0, [-1, -1], [-1])], 0)


# -- the sum of all terms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "policy", "teacher"),
    [  # the failed rollout's k2 values are 1/2, 2 and 9/2, together 7; beta is 0.1
        ("token_mean", -(2 * A - 3 * A) / 5, 0.1 * 7 / 5),
        ("token_sum", -(2 * A - 3 * A) / 2, 0.1 * 7 / 2),
        ("sequence_mean", -(A - A) / 2, 0.1 * (7 / 3) / 2),
    ],
)
def test_a_vold_step_by_hand_under_each_aggregate(aggregate: str, policy: float, teacher: float) -> None:
    o = make("vold", surrogate={"aggregate": aggregate}, teacher_loss={"aggregate": aggregate})
    loss, gradient, metrics = run(o, mixed_group())
    assert metrics["policy_loss"] == approx(policy)
    assert metrics["teacher_loss"] == approx(teacher)
    assert loss == approx(policy + teacher)
    if aggregate == "token_mean":  # -A and beta times the gap, each over 5 tokens
        assert gradient == approx([-A / 5, -A / 5, (A + 0.1) / 5, (A + 0.2) / 5, (A + 0.3) / 5])


def test_k3_by_hand() -> None:
    o = make("vold", outcome=None, surrogate=None, teacher_loss={"estimator": "k3"})
    _, gradient, metrics = run(o, mixed_group())
    want = sum(math.exp(-g) - 1 + g for g in (1, 2, 3))
    assert metrics["teacher_loss"] == approx(0.1 * want / 5)
    assert gradient == approx([0, 0, *(0.1 * (1 - math.exp(-g)) / 5 for g in (1, 2, 3))])


def test_nll_by_hand() -> None:
    rows = [rollout(0, [-1, -2]), rollout(0, [-6])]
    assert run(make("sft"), rows)[0] == approx(3)
    assert run(make("sft", nll={"aggregate": "token_sum"}), rows)[0] == approx(4.5)
    loss, gradient, _ = run(make("sft", nll={"aggregate": "sequence_mean"}), rows)
    assert loss == approx(3.75)
    assert gradient == approx([-0.25, -0.25, -0.5])


def test_a_graded_score_weighs_the_teacher_by_what_is_missing() -> None:
    rows = [rollout(0.75, [-1], [-3])]
    assert run(make("vold"), rows)[2]["teacher_loss"] == approx(0.1 * 0.25 * 2)


def test_a_group_that_all_passed_teaches_nothing() -> None:
    rows = [rollout(1, [-1, -2], [-3, -3]) for _ in range(3)]
    loss, gradient, _ = run(make("vold"), rows)
    assert (loss, gradient) == (0.0, [0.0] * 6)


def test_a_group_that_all_failed_learns_from_the_teacher_alone() -> None:
    rows = [rollout(0, [-1], [-2]), rollout(0, [-1], [-0.5])]
    _, gradient, metrics = run(make("vold"), rows)
    assert metrics["policy_loss"] == 0.0
    assert gradient == approx([0.1 * 1 / 2, 0.1 * -0.5 / 2])


def test_the_coefficient_anneals_with_the_step() -> None:
    rows = [rollout(0, [-1], [-3])]
    for step, beta in ((0, 5e-3), (40, 3e-3), (500, 1e-3)):
        assert run(make("kdrl"), rows, step)[2]["teacher_loss"] == approx(2 * beta)


def test_the_teacher_as_advantage_and_as_loss_have_one_gradient_on_policy() -> None:
    rows = mixed_group()
    as_loss = make(None, teacher_loss={"coefficient": 1.0, "mask": "failed"})
    as_advantage = make("opd", teacher_advantage={"mask": "failed"})
    assert run(as_loss, rows)[1] == approx(run(as_advantage, rows)[1])
    assert run(as_loss, rows)[1] == approx([0, 0, 1 / 5, 2 / 5, 3 / 5])


@pytest.mark.parametrize(("shift", "weight"), [(-math.log(2), 0.5), (math.log(1.5), 1.5), (1.0, 2.0)])
def test_the_teachers_loss_on_older_rollouts_is_weighed_by_the_ratio(shift: float, weight: float) -> None:
    """The student is 1, 2 and 3 nats surer than the teacher, and by `shift` more since."""
    o = make(None, teacher_loss={"coefficient": 1.0, "mask": "failed"})
    loss, gradient, _ = run(o, mixed_group(), shift=shift)
    gaps = [1 + shift, 2 + shift, 3 + shift]
    assert loss == approx(weight * sum(g * g / 2 for g in gaps) / 5)
    assert gradient == approx([0, 0, *(weight * g / 5 for g in gaps)])


def test_what_the_student_has_not_sampled_is_not_weighed() -> None:
    o = make(None, teacher_loss={"coefficient": 1.0, "mask": "failed"})
    streams = streams_of(o, mixed_group(), shift=-1.0)
    streams.behaviour_logp[2:4] = NAN
    loss, _ = total(o, streams, Denominators(teacher_loss=5), 0)
    (gradient,) = torch.autograd.grad(loss, streams.logp)
    assert gradient.tolist() == approx([0, 0, 0, 1 / 5, math.exp(-1) * 2 / 5])


def test_the_clip_bounds_reach_the_surrogate_in_their_places() -> None:
    # ratio 1.25 is inside [0.8, 1.3], ratio 1.4 outside for the rollout that passed only
    for ratio, passed, failed in ((1.25, 1.25, 1.25), (1.4, 0.0, 1.4), (0.75, 0.75, 0.0)):
        rows = [rollout(1, [-2]), rollout(0, [-2])]
        _, gradient, metrics = run(make("grpo"), rows, shift=math.log(ratio))
        assert gradient == approx([-passed * A / 2, failed * A / 2])
        found = averages(metrics)
        assert found["clip_fraction"] == (0.5 if 0.0 in (passed, failed) else 0.0)
        assert found["clip_fraction"] == found["clip_high_fraction"] + found["clip_low_fraction"]
        assert (found["clip_high_fraction"] > 0) == (passed == 0) and (found["clip_low_fraction"] > 0) == (failed == 0)
        assert averages(metrics)["ratio"] == approx(ratio)
    unclipped = make("grpo", surrogate={"clip_low": None, "clip_high": None})
    _, gradient, metrics = run(unclipped, rows, shift=math.log(5))
    assert gradient == approx([-5 * A / 2, 5 * A / 2])
    assert averages(metrics)["clip_fraction"] == 0


def test_the_teacher_gap_is_unweighted_over_the_tokens_the_teacher_scored() -> None:
    rows = [rollout(1, [-1]), rollout(0.5, [-1, -1], [-2, -0.5])]
    means = averages(run(make("vold"), rows)[2])
    assert means["teacher_gap"] == approx((1 - 0.5) / 2)
    assert "teacher_gap" not in averages(run(make("grpo"), rows)[2])
    assert averages(run(make("opd"), rows)[2])["teacher_gap"] == approx(0.25)


# -- denominators and micro-batches -----------------------------------------------------------------------------------


def test_denominators_count_every_rollout_of_the_step_and_only_action_tokens() -> None:
    rows = [rollout(1, [-1, -1], mask=[1, 0]), rollout(0, [-1, -1, -1], [-1, -1, -1]), rollout(0, [], [])]
    assert token_counts(make("vold"), rows) == Denominators(surrogate=4, teacher_loss=4, nll=0)
    mixed = make("vold", surrogate={"aggregate": "token_sum"}, teacher_loss={"aggregate": "sequence_mean"})
    assert token_counts(mixed, rows) == Denominators(surrogate=3, teacher_loss=3)
    assert token_counts(make("sft"), rows) == Denominators(nll=4)


def test_rollouts_without_a_text_view_do_not_dilute_the_teacher_term() -> None:
    rows = [rollout(0, [-1, -1]), rollout(0, [-1, -1, -1], [-1, -1, -1])]
    assert token_counts(make("vold"), rows, teachable=[False, True]) == Denominators(surrogate=5, teacher_loss=3)


@pytest.mark.parametrize("method", ["opd", "uni_opd", "prefix_teach", "minillm"])
def test_rollouts_without_a_text_view_do_not_dilute_a_teacher_that_is_all_there_is(method: str) -> None:
    """Rollouts of 2 and 3 tokens, the first without a text view: 3 tokens, or one rollout, are left."""
    rows = [rollout(0, [-1, -1]), rollout(0, [-1, -1, -1], [-1, -1, -1])]
    found = token_counts(make(method), rows, teachable=[False, True]).surrogate
    assert found == (1 if method == "uni_opd" else 3)


@pytest.mark.parametrize(("coefficient", "tokens"), [(0.1, 5), (0.0, 3)])
def test_where_the_reference_is_in_the_advantage_all_rollouts_learn_and_count(coefficient: float, tokens: int) -> None:
    """Rollouts of 2 and 3 tokens, the first without a text view."""
    rows = [rollout(0, [-1, -1]), rollout(0, [-1, -1, -1], [-1, -1, -1])]
    o = make("opd", reference={"coefficient": coefficient, "estimator": "k1"})
    assert token_counts(o, rows, teachable=[False, True]).surrogate == tokens


def test_metrics_have_the_same_names_where_no_rollout_has_reference_log_probs() -> None:
    """As in a micro-batch of the teacher's traces alone."""
    o = make("vold", reference={"coefficient": 0.1})
    streams = streams_of(o, mixed_group())
    with_them = dataclasses.replace(streams, reference_logp=streams.logp.detach() - 1)
    (loss, without), (_, whole) = (total(o, s, token_counts(o, mixed_group()), 0) for s in (streams, with_them))
    assert list(without) == list(whole)
    assert without["reference_loss"] == without["reference_tokens"] == 0 and loss.isfinite()
    assert whole["reference_tokens"] == 5


@pytest.mark.parametrize("method", ["sod", "mopd", "grpo"])
def test_rollouts_without_a_text_view_count_where_an_outcome_teaches_them(method: str) -> None:
    rows = [rollout(0, [-1, -1]), rollout(0, [-1, -1, -1], [-1, -1, -1])]
    assert token_counts(make(method), rows, teachable=[False, True]).surrogate == (2 if method == "mopd" else 5)


def test_denominators_of_processes_add_up() -> None:
    assert Denominators(1, 2, 3) + Denominators(10, 20, 30) == Denominators(11, 22, 33)


LOGP = st.floats(-4, -0.01)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0]),
        st.lists(st.tuples(LOGP, LOGP), min_size=1, max_size=4),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)
FORMS = [
    make("vold"),
    make("vold", surrogate={"aggregate": "sequence_mean"}, teacher_loss={"aggregate": "token_sum", "estimator": "k3"}),
    make("opd", nll={"aggregate": "sequence_mean"}),
    make("gspo", surrogate={"clip_low": 0.2, "clip_high": 0.2}),
    make("uni_opd", teacher_advantage={"gate": 1.0}),
    make("mopd", surrogate={"band": {"low": 0.9, "high": 1.2}}),
    make("sod", outcome={"overlong": None}),
    make("gkd"),
]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ROWS, st.sampled_from(FORMS))
def test_the_gradient_does_not_depend_on_the_cut_into_micro_batches(
    rows: list[tuple[float, list[tuple[float, float]], int, int]], objective: Objective
) -> None:
    rollouts = [rollout(s, [a for a, _ in pairs], [b for _, b in pairs], group=g) for s, pairs, g, _ in rows]
    whole = streams_of(objective, rollouts, shift=0.1)
    if objective.mix is not None:  # any divergence that depends on the student
        whole = dataclasses.replace(whole, divergence=whole.logp * whole.teacher_logp)
    denominators = token_counts(objective, rollouts)
    loss, metrics = total(objective, whole, denominators, 3)
    (gradient,) = torch.autograd.grad(loss, whole.logp)
    batch_of = torch.tensor([rows[int(i)][3] for i in whole.sequence_index])
    sums = dict.fromkeys(metrics, 0.0)
    parts, pieces = 0.0, torch.zeros_like(gradient)
    for batch in range(4):
        on = batch_of == batch
        cut = {n: value.detach()[on] for n, value in vars(whole).items() if value is not None}
        cut["logp"].requires_grad_()
        if objective.mix is not None:
            cut["divergence"] = cut["logp"] * cut["teacher_logp"]
        part, found = total(objective, Streams(**cut), denominators, 3)
        parts += part.item()
        pieces[on] = torch.autograd.grad(part, cut["logp"])[0]
        sums = {k: sums[k] + v.item() for k, v in found.items()}
    assert parts == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
    torch.testing.assert_close(pieces, gradient, rtol=1e-12, atol=1e-14)
    assert sums == {k: pytest.approx(v.item(), rel=1e-12, abs=1e-12) for k, v in metrics.items()}


# -- robustness -------------------------------------------------------------------------------------------------------


def test_a_nan_the_terms_do_not_use_reaches_neither_value_nor_gradient() -> None:
    o = make("vold")
    clean, dirty = streams_of(o, mixed_group()), streams_of(o, mixed_group())
    dirty.teacher_logp[:2] = NAN  # the rollout that passed
    for s in (clean, dirty):
        s.advantage[0] = 0.0
    dirty.behaviour_logp[0] = NAN
    counts = Denominators(5, 5)
    results = []
    for s in (clean, dirty):
        loss, metrics = total(o, s, counts, 0)
        assert all(torch.isfinite(m) for m in metrics.values())
        results.append((loss.item(), torch.autograd.grad(loss, s.logp)[0].tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("method", ["vold", "opd", "kdrl"])
@pytest.mark.parametrize("tokens", [0, 3])
def test_a_batch_with_nothing_selected_back_propagates_zeros(method: str, tokens: int) -> None:
    weight = torch.ones(2, requires_grad=True)
    logp = (weight.sum() * torch.full((tokens,), -1.0)).requires_grad_()
    nothing, absent = torch.zeros(tokens), torch.full((tokens,), NAN)
    s = Streams(logp, absent, nothing, absent, nothing, nothing, torch.full((tokens,), 3))
    loss, metrics = total(make(method), s, Denominators(), 0)
    loss.backward()
    assert loss.item() == 0
    assert weight.grad is not None and weight.grad.tolist() == [0, 0]
    assert all(m.item() == 0 and not m.requires_grad for m in metrics.values())


def test_metrics_carry_no_graph_and_advantages_no_gradient() -> None:
    o = make("vold")
    s = streams_of(o, mixed_group())
    s = dataclasses.replace(s, advantage=s.advantage.requires_grad_(), teacher_logp=s.teacher_logp.requires_grad_())
    loss, metrics = total(o, s, Denominators(5, 5), 0)
    loss.backward()
    assert s.advantage.grad is None
    assert s.teacher_logp.grad is None
    assert not any(m.requires_grad for m in metrics.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("estimator", SAMPLED)
def test_loss_and_gradient_are_finite_at_gaps_up_to_eighty_nats(dtype: torch.dtype, estimator: str) -> None:
    gaps = torch.arange(81.0)
    ones = torch.ones(162)
    logp = torch.cat([-gaps, torch.zeros(81)]).to(dtype).requires_grad_()
    behaviour, teacher = torch.zeros(162), torch.cat([torch.zeros(81), -gaps])
    s = Streams(logp, behaviour, ones, teacher, ones, ones, ones)
    loss, _ = total(make("vold", teacher_loss={"estimator": estimator}), s, Denominators(162, 162), 0)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)
    assert logp.grad is not None and torch.isfinite(logp.grad).all()


def test_half_precision_log_probs_are_summed_in_single() -> None:
    logp, x = torch.full((1001,), -1.0, dtype=torch.bfloat16), torch.zeros(1001)  # bfloat16 would round to 1000
    loss, _ = total(make("sft"), Streams(logp, x, x, x, x, x, x), Denominators(nll=1), 0)
    assert (loss.dtype, loss.item()) == (torch.float32, 1001.0)


def test_streams_of_different_lengths_are_refused() -> None:
    s = streams_of(make("vold"), mixed_group())
    with pytest.raises(ValueError, match="equally long"):
        dataclasses.replace(s, advantage=s.advantage[:1])
    with pytest.raises(ValueError, match="one-dimensional"):
        dataclasses.replace(s, logp=s.logp[None])


# -- whole steps in a world of 27 responses ---------------------------------------------------------------------------


class World:
    """Responses of three symbols from a bigram table; symbol 2 in the last place is a pass. All 27 can be listed, so
    reward and divergence are exact. The teacher passes 90% of the time and has its own way of getting there."""

    def __init__(self) -> None:
        self.teacher = torch.tensor(
            [[6.0, 3.0, 1.0], [1.0, 8.0, 1.0], [2.0, 2.0, 6.0], [1.0, 6.0, 3.0]], dtype=torch.float64
        )
        self.teacher[:3, 2] = 9 * self.teacher[:3, :2].sum(-1)
        self.teacher = (self.teacher / self.teacher.sum(-1, keepdim=True)).log()
        self.student = torch.zeros(4, 3, dtype=torch.float64).requires_grad_()
        self.everything = torch.cartesian_prod(*[torch.arange(3)] * 3)

    @staticmethod
    def logps(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """[rows, 3] log-probs; row 3 of a table is the start."""
        before = torch.cat([torch.full_like(ids[:, :1], 3), ids[:, :-1]], 1)
        return table.log_softmax(-1)[before, ids]

    def exact(self) -> tuple[float, float]:
        """Probability of a pass, and KL(student‖teacher) in nats a response."""
        with torch.no_grad():
            mine, theirs = (self.logps(t, self.everything).sum(-1) for t in (self.student, self.teacher))
        p = mine.exp()
        return p[self.everything[:, 2] == 2].sum().item(), (p * (mine - theirs)).sum().item()

    def train(self, objective: Objective, steps: int = 40) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            with torch.no_grad():
                p = self.logps(self.student, self.everything).sum(-1).exp()
                ids = self.everything[torch.multinomial(p, 40, replacement=True, generator=generator)]
                mine, theirs = self.logps(self.student, ids).tolist(), self.logps(self.teacher, ids).tolist()
            scores = [float(row[2] == 2) for row in ids.tolist()]
            groups = [i // 5 for i in range(40)]
            asked = [rollout(scores[i], mine[i], group=groups[i]) for i in range(40)]
            wanted = needs_teacher(objective, asked)
            rollouts = [
                rollout(scores[i], mine[i], theirs[i] if wanted[i] else None, group=groups[i]) for i in range(40)
            ]
            s = dataclasses.replace(
                streams_of(objective, rollouts, step), logp=self.logps(self.student, ids).reshape(-1)
            )
            loss, _ = total(objective, s, token_counts(objective, rollouts), step)
            (gradient,) = torch.autograd.grad(loss, self.student)
            with torch.no_grad():
                self.student -= 1.0 * gradient
        return self.exact()


def test_grpo_raises_reward_and_vold_also_draws_the_student_to_the_teacher() -> None:
    start_reward, start_gap = World().exact()
    assert start_reward == approx(1 / 3)
    grpo_reward, grpo_gap = World().train(make("grpo"))
    assert grpo_reward > start_reward + 0.3
    reward, gap = World().train(make("vold", teacher_loss={"coefficient": 0.5}))
    assert reward > start_reward + 0.3
    assert gap < 0.5 * start_gap
    assert gap < grpo_gap
    opd_reward, opd_gap = World().train(make("opd"))
    assert opd_gap < gap
    assert opd_reward > start_reward + 0.3
