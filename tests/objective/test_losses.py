"""Per-token losses against values worked out by hand and gradients worked out by enumeration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from vold.objective.losses import (
    clipped_surrogate,
    full_forward_kl,
    full_reverse_kl,
    importance,
    importance_surrogate,
    inside_band,
    jensen_shannon,
    k1,
    k2,
    k3,
    nll,
    sequence_log_ratio,
    stopped_reverse_kl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LN2, LN3 = math.log(2), math.log(3)
STUDENT = [0.1, 0.4, 0.2, 0.25, 0.05]
TEACHER = [0.3, 0.1, 0.2, 0.15, 0.25]
OLDER = [0.2, 0.3, 0.15, 0.2, 0.15]
"""A student of some updates ago, none of whose symbols has become twice as likely since."""
FORWARD_KL_GRADIENT = [a - b for a, b in zip(STUDENT, TEACHER, strict=True)]
"""d/dz_j sum_v q_v ln(q_v/p_v) = p_j - q_j."""


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(got: torch.Tensor, want: list[float]) -> None:
    torch.testing.assert_close(got, f64(*want), rtol=1e-12, atol=1e-14)


def expected_gradient(
    per_token: Callable[[torch.Tensor], torch.Tensor], drawn_from: list[float] = STUDENT
) -> torch.Tensor:
    """Gradient by the logits of a 5-symbol student, averaged exactly over tokens drawn from that student, or others."""
    logits = f64(*STUDENT).log().requires_grad_()
    values = per_token(logits.log_softmax(-1))
    (gradient,) = torch.autograd.grad((f64(*drawn_from) * values).sum(), logits)
    return gradient


def reverse_kl_gradient() -> list[float]:
    """d/dz_j sum_v p_v ln(p_v/q_v) = p_j (ln(p_j/q_j) - KL)."""
    kl = sum(a * math.log(a / b) for a, b in zip(STUDENT, TEACHER, strict=True))
    return [a * (math.log(a / b) - kl) for a, b in zip(STUDENT, TEACHER, strict=True)]


def test_nll_is_minus_the_log_probability() -> None:
    close(nll(f64(-LN2, 0.0)), [LN2, 0.0])


def test_estimators_of_a_token_the_student_finds_twice_as_likely() -> None:
    # gap = ln(1/2) - ln(1/4) = ln 2;  k2 = (ln 2)^2 / 2;  k3 = 1/2 - 1 + ln 2
    student, teacher = f64(-LN2), f64(-2 * LN2)
    close(k1(student, teacher), [LN2])
    close(k2(student, teacher), [LN2 * LN2 / 2])
    close(k3(student, teacher), [LN2 - 0.5])


def test_estimators_of_a_token_the_teacher_finds_three_times_as_likely() -> None:
    # gap = ln(1/3);  k3 = 3 - 1 - ln 3
    student, teacher = f64(-2 * LN3), f64(-LN3)
    close(k1(student, teacher), [-LN3])
    close(k2(student, teacher), [LN3 * LN3 / 2])
    close(k3(student, teacher), [2 - LN3])


def test_full_divergences_of_a_fair_coin_from_a_biased_one() -> None:
    # KL((1/2,1/2) || (1/4,3/4)) = ln(4/3) / 2;  the other way: ln(1/2)/4 + 3 ln(3/2)/4
    fair, biased = f64(0.5, 0.5).log()[None], f64(0.25, 0.75).log()[None]
    close(full_reverse_kl(fair, biased), [math.log(4 / 3) / 2])
    close(full_forward_kl(fair, biased), [-LN2 / 4 + 0.75 * math.log(1.5)])


def test_full_divergences_do_not_care_about_a_constant_added_to_the_logits() -> None:
    fair, biased = f64(0.5, 0.5).log()[None], f64(0.25, 0.75).log()[None]
    close(full_reverse_kl(fair + 7, biased - 3), [math.log(4 / 3) / 2])
    close(full_forward_kl(fair + 7, biased - 3), [-LN2 / 4 + 0.75 * math.log(1.5)])


@pytest.mark.parametrize("divergence", [k1, k2, k3, full_reverse_kl, full_forward_kl])
def test_a_distribution_does_not_diverge_from_itself(divergence: Callable[..., torch.Tensor]) -> None:
    p = f64(*STUDENT).log()
    assert torch.equal(divergence(p, p.clone()), torch.zeros_like(divergence(p, p)))


def test_k1_and_k3_are_unbiased_for_reverse_kl() -> None:
    p, q = f64(*STUDENT), f64(*TEACHER)
    exact = sum(a * math.log(a / b) for a, b in zip(STUDENT, TEACHER, strict=True))
    close((p * k1(p.log(), q.log())).sum()[None], [exact])
    close((p * k3(p.log(), q.log())).sum()[None], [exact])


def test_k2_back_propagates_the_reverse_kl_gradient() -> None:
    teacher, exact = f64(*TEACHER).log(), reverse_kl_gradient()
    close(expected_gradient(lambda logp: k2(logp, teacher)), exact)
    logits = f64(*STUDENT).log().requires_grad_()
    (full,) = torch.autograd.grad(full_reverse_kl(logits, teacher), logits)
    close(full, exact)


@pytest.mark.parametrize(("loss", "exact"), [(k2, reverse_kl_gradient()), (k3, FORWARD_KL_GRADIENT)])
def test_weighed_by_importance_tokens_of_older_weights_give_the_gradient_of_new_ones(
    loss: Callable[..., torch.Tensor], exact: list[float]
) -> None:
    older, teacher = f64(*OLDER).log(), f64(*TEACHER).log()
    close(expected_gradient(lambda logp: importance(logp, older) * loss(logp, teacher), OLDER), exact)


def test_a_token_weighs_by_how_much_likelier_it_has_become_and_twice_at_most() -> None:
    now, then = f64(-LN2, -LN3, -1.0, -1.0), f64(-LN3, -LN2, -9.0, -1.0)
    close(importance(now, then), [1.5, 2 / 3, 2.0, 1.0])
    close(importance(now, then, cap=1.0), [1.0, 2 / 3, 1.0, 1.0])


def test_k3_back_propagates_the_forward_kl_gradient() -> None:
    teacher, exact = f64(*TEACHER).log(), FORWARD_KL_GRADIENT
    close(expected_gradient(lambda logp: k3(logp, teacher)), exact)
    logits = f64(*STUDENT).log().requires_grad_()
    (full,) = torch.autograd.grad(full_forward_kl(logits, teacher), logits)
    close(full, exact)


def test_k1_back_propagates_nothing_on_average() -> None:
    close(expected_gradient(lambda logp: k1(logp, f64(*TEACHER).log())), [0.0] * 5)


@pytest.mark.parametrize("surrogate", ["clipped", "importance"])
def test_the_surrogate_at_ratio_one_has_the_policy_gradient(surrogate: str) -> None:
    # -d/dz_j sum_v p_v A_v = -p_j (A_j - sum_v p_v A_v)
    advantages = [1.0, -2.0, 0.5, 0.0, 3.0]
    mean = sum(p * a for p, a in zip(STUDENT, advantages, strict=True))
    exact = [-p * (a - mean) for p, a in zip(STUDENT, advantages, strict=True)]
    old = f64(*STUDENT).log()

    def loss(logp: torch.Tensor) -> torch.Tensor:
        if surrogate == "clipped":
            return clipped_surrogate(logp, old, f64(*advantages), 0.2, 0.3)
        return importance_surrogate(logp, old, f64(*advantages))

    close(expected_gradient(loss), exact)


def test_the_teacher_as_advantage_has_the_gradient_of_the_k2_loss() -> None:
    old, teacher = f64(*STUDENT).log(), f64(*TEACHER).log()
    as_loss = expected_gradient(lambda logp: k2(logp, teacher))
    as_advantage = expected_gradient(lambda logp: clipped_surrogate(logp, old, teacher - old, 0.2, 0.3))
    close(as_advantage, as_loss.tolist())


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [  # clip range [0.8, 1.3]; loss = -min(ratio A, clip(ratio) A); slope = d loss / d logp = -ratio A, or 0 if clipped
        (1.0, 2.0, -2.0, -2.0),
        (1.25, 2.0, -2.5, -2.5),  # inside: above 1.2, which is the bound of the other side
        (1.5, 2.0, -2.6, 0.0),  # too far up for a good token: held at 1.3
        (0.5, 2.0, -1.0, -1.0),  # a good token may always come back
        (0.75, -2.0, 1.6, 0.0),  # too far down for a bad token: held at 0.8; a bound of 0.7 would let it on
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # a bad token may always be pushed back
        (0.9, -2.0, 1.8, 1.8),
    ],
)
def test_the_clip_holds_one_side_of_each_sign(ratio: float, advantage: float, value: float, slope: float) -> None:
    logp = f64(math.log(ratio) - LN2).requires_grad_()
    loss = clipped_surrogate(logp, f64(-LN2), f64(advantage), 0.2, 0.3)
    close(loss.detach(), [value])
    close(torch.autograd.grad(loss.sum(), logp)[0], [slope])


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (4.0, -2.0, 6.0, 0.0),  # 8 without the second bound
        (2.5, -2.0, 5.0, 5.0),
        (0.5, -2.0, 1.6, 0.0),
        (4.0, 2.0, -2.6, 0.0),
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_the_dual_clip_bounds_the_loss_of_a_negative_advantage(
    ratio: float, advantage: float, value: float, slope: float
) -> None:
    logp = f64(math.log(ratio) - LN2).requires_grad_()
    loss = clipped_surrogate(logp, f64(-LN2), f64(advantage), 0.2, 0.3, 3.0)
    close(loss.detach(), [value])
    close(torch.autograd.grad(loss.sum(), logp)[0], [slope])


def test_the_unclipped_surrogate_never_holds() -> None:
    logp = f64(math.log(5) - LN2, math.log(0.1) - LN2).requires_grad_()
    loss = importance_surrogate(logp, f64(-LN2, -LN2), f64(2.0, -2.0))
    close(loss.detach(), [-10.0, 0.2])
    close(torch.autograd.grad(loss.sum(), logp)[0], [-10.0, 0.2])


def test_gradient_flows_into_the_students_current_log_probs_only() -> None:
    for loss in (k1, k2, k3, full_reverse_kl, full_forward_kl):
        student, teacher = f64(-1.0, -2.0).requires_grad_(), f64(-2.0, -0.5).requires_grad_()
        loss(student, teacher).sum().backward()
        assert student.grad is not None
        assert teacher.grad is None
    logp, old, advantage = (f64(x).requires_grad_() for x in (-1.0, -1.1, 2.0))
    (clipped_surrogate(logp, old, advantage, 0.2, 0.3) + importance_surrogate(logp, old, advantage)).sum().backward()
    assert logp.grad is not None
    assert old.grad is None
    assert advantage.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_and_gradients_are_finite_at_gaps_up_to_eighty_nats(dtype: torch.dtype, sign: int) -> None:
    gap = torch.arange(0, 81, dtype=torch.float32)
    for loss in (k1, k2, k3):
        low, high = (-gap).to(dtype), torch.zeros(81, dtype=dtype)
        student, teacher = (low, high) if sign > 0 else (high, low)
        student.requires_grad_()
        value = loss(student, teacher)
        value.float().sum().backward()
        assert torch.isfinite(value).all()
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()
    for full in (full_reverse_kl, full_forward_kl):
        logits = torch.stack([sign * gap, torch.zeros(81)], -1).to(dtype).requires_grad_()
        value = full(logits, torch.zeros(81, 2, dtype=dtype))
        value.float().sum().backward()
        assert torch.isfinite(value).all()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_k3_keeps_its_digits_where_student_and_teacher_nearly_agree() -> None:
    # e^-g - 1 + g = g^2/2 - g^3/6 + ...; at g = 1e-5 in float64, naive subtraction keeps some six digits
    gap = 1e-5
    torch.testing.assert_close(k3(f64(0.0), f64(-gap)), f64(gap**2 / 2 - gap**3 / 6), rtol=1e-9, atol=0)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student_logp \[2\], teacher_logp \[1\]"):
        k2(f64(-1.0, -1.0), f64(-1.0))
    with pytest.raises(ValueError, match="nothing is broadcast"):
        clipped_surrogate(f64(-1.0, -1.0), f64(-1.0, -1.0), f64(1.0), 0.2, 0.2)
    with pytest.raises(ValueError, match="nothing is broadcast"):
        importance_surrogate(f64(-1.0, -1.0), f64(-1.0, -1.0), f64(1.0))
    with pytest.raises(ValueError, match="teacher_logits"):
        full_reverse_kl(torch.zeros(2, 3), torch.zeros(1, 3))


# -- GSPO, MiMo, GKD and candidates -----------------------------------------------------------------------------------


def test_the_sequence_ratio_is_the_geometric_mean_and_its_gradient_that_of_the_mean() -> None:
    """Log ratios 1, 3 of one response and 5 of another: means 2 and 5. d/dlogp of the mean over a response of
    exp(mean) is exp(mean) / length."""
    logp = f64(0.0, 1.0, 2.0).requires_grad_()
    sequence = torch.tensor([7, 4, 7])
    ratio = sequence_log_ratio(logp, f64(-1.0, -4.0, -1.0), sequence)
    close(ratio.detach(), [2.0, 5.0, 2.0])
    value = (ratio.exp() / f64(2.0, 1.0, 2.0)).sum()
    (gradient,) = torch.autograd.grad(value, logp)
    close(gradient, [math.exp(2) / 2, math.exp(5), math.exp(2) / 2])


def test_the_sequence_ratio_does_not_reach_the_behaviour_nor_other_responses() -> None:
    logp, behaviour = f64(0.0, 0.0).requires_grad_(), f64(-1.0, math.nan).requires_grad_()
    ratio = sequence_log_ratio(logp, behaviour, torch.tensor([0, 1]))
    ratio[0].backward()
    assert behaviour.grad is None
    assert logp.grad is not None and logp.grad.tolist() == [1.0, 0.0]
    assert len(sequence_log_ratio(f64(), f64(), torch.tensor([], dtype=torch.int64))) == 0


def test_the_band_holds_ratios_between_its_bounds() -> None:
    log_ratio = f64(0.49, 0.5, 1.0, 2.0, 2.01).log()
    log_ratio[1], log_ratio[3] = math.log(0.5), math.log(2.0)
    assert inside_band(log_ratio, 0.499, 2.001).tolist() == [False, True, True, True, False]
    assert inside_band(f64(0.0), 1.0, 1.0).tolist() == [True]


def jsd_by_hand(p: list[float], q: list[float], beta: float) -> float:
    """beta KL(q‖m) + (1 - beta) KL(p‖m) with m = beta q + (1 - beta) p; q is the teacher."""
    m = [beta * b + (1 - beta) * a for a, b in zip(p, q, strict=True)]
    first = sum(b * math.log(b / c) for b, c in zip(q, m, strict=True))
    return beta * first + (1 - beta) * sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.75])
def test_the_jensen_shannon_divergence_of_gkd(beta: float) -> None:
    student, teacher = f64(*STUDENT).log()[None] + 3, f64(*TEACHER).log()[None]
    close(jensen_shannon(student, teacher, beta), [jsd_by_hand(STUDENT, TEACHER, beta)])


def test_half_and_half_of_two_coins() -> None:
    # fair coin and (1/4, 3/4): m = (3/8, 5/8)
    want = 0.5 * (0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)) + 0.5 * (
        0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)
    )
    close(jensen_shannon(f64(0.5, 0.5).log()[None], f64(0.25, 0.75).log()[None], 0.5), [want])


def test_the_ends_of_beta_are_forward_and_reverse_kl() -> None:
    student, teacher = f64(*STUDENT).log()[None], f64(*TEACHER).log()[None]
    assert torch.equal(jensen_shannon(student, teacher, 0), full_forward_kl(student, teacher))
    assert torch.equal(jensen_shannon(student, teacher, 1), full_reverse_kl(student, teacher))
    near = jensen_shannon(student, teacher, 1e-6) / 1e-6
    torch.testing.assert_close(near, full_forward_kl(student, teacher), rtol=1e-5, atol=0)


def test_the_jensen_shannon_gradient_reaches_the_student_alone() -> None:
    """d/dz_j = (1 - beta) p_j (ln(p_j / m_j) - Σ p ln(p / m)): the terms of dm cancel, since Σ_v dm_v = 0."""
    beta = 0.3
    student, teacher = f64(*STUDENT).log().requires_grad_(), f64(*TEACHER).log().requires_grad_()
    jensen_shannon(student, teacher, beta).backward()
    assert teacher.grad is None
    m = [beta * b + (1 - beta) * a for a, b in zip(STUDENT, TEACHER, strict=True)]
    mean = sum(a * math.log(a / c) for a, c in zip(STUDENT, m, strict=True))
    exact = [(1 - beta) * a * (math.log(a / c) - mean) for a, c in zip(STUDENT, m, strict=True)]
    assert student.grad is not None
    close(student.grad, exact)


def test_stopped_reverse_kl_over_everything_has_the_exact_gradient() -> None:
    logits, teacher = f64(*STUDENT).log().requires_grad_(), f64(*TEACHER).log()
    exact = sum(a * math.log(a / b) for a, b in zip(STUDENT, TEACHER, strict=True))
    value = stopped_reverse_kl(logits.log_softmax(-1), teacher)
    close(value.detach()[None], [exact])
    (gradient,) = torch.autograd.grad(value, logits)
    close(gradient, [a * (math.log(a / b) - exact) for a, b in zip(STUDENT, TEACHER, strict=True)])


def test_stopped_reverse_kl_over_some_candidates() -> None:
    """Over the first two of five: Σ_k p_k g_k, and d/dz_j = p_j g_j [j in K] - p_j Σ_K p_k g_k. A plain derivative adds
    p_j [j in K] - p_j P(K), which is there even where the models agree."""
    logits, teacher = f64(*STUDENT).log().requires_grad_(), f64(*TEACHER).log()
    value = stopped_reverse_kl(logits.log_softmax(-1)[:2], teacher[:2])
    gaps = [math.log(a / b) if j < 2 else 0.0 for j, (a, b) in enumerate(zip(STUDENT, TEACHER, strict=True))]
    part = sum(p * g for p, g in zip(STUDENT, gaps, strict=True))
    close(value.detach()[None], [part])
    (gradient,) = torch.autograd.grad(value, logits)
    close(gradient, [p * g - p * part for p, g in zip(STUDENT, gaps, strict=True)])
    agreed = f64(*STUDENT).log().requires_grad_()
    (zero,) = torch.autograd.grad(stopped_reverse_kl(agreed.log_softmax(-1)[:2], f64(*STUDENT).log()[:2]), agreed)
    close(zero, [0.0] * 5)
