"""KL to a reference, entropy bonus and truncated importance sampling, on tokens few enough to do by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from vold.objective import Denominators, Objective, Streams, averages, credit, token_counts, total
from vold.types import Completion, Grade, Rollout

NAN = math.nan


def make(**over: Any) -> Objective:
    return Objective.model_validate({"method": "grpo", **over})


def streams(logp: list[float], *, behaviour: list[float] | None = None, **more: Any) -> Streams:
    """Tokens of one rollout; without more, none has an advantage or a teacher."""
    n = len(logp)
    values = {name: torch.tensor(v, dtype=torch.float64) for name, v in more.items()}
    nothing = torch.zeros(n, dtype=torch.float64)
    return Streams(
        logp=torch.tensor(logp, dtype=torch.float64, requires_grad=True),
        behaviour_logp=torch.tensor(behaviour or logp, dtype=torch.float64),
        advantage=values.pop("advantage", nothing),
        teacher_logp=torch.full((n,), NAN, dtype=torch.float64),
        teacher_weight=nothing,
        sequence_index=torch.zeros(n, dtype=torch.int64),
        sequence_length=torch.full((n,), n),
        **values,
    )


def run(objective: Objective, s: Streams, **denominators: int) -> tuple[float, list[float], dict[str, float]]:
    """Loss, its gradient by the log-probs, and metrics."""
    loss, metrics = total(objective, s, Denominators(**denominators), 0)
    assert not any(m.requires_grad for m in metrics.values())
    loss.backward()
    assert s.logp.grad is not None
    return loss.item(), s.logp.grad.tolist(), averages({k: float(v) for k, v in metrics.items()})


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    # student twice as likely as the reference, gap ln 2; the other token a quarter as likely, gap -ln 4
    [
        ("k2", (math.log(2) ** 2 + math.log(4) ** 2) / 2, (math.log(2), -math.log(4))),
        ("k3", (0.5 - 1 + math.log(2)) + (4 - 1 - math.log(4)), (1 - 0.5, 1 - 4)),
    ],
)
def test_the_reference_by_hand(estimator: str, value: float, slope: tuple[float, float]) -> None:
    """The mean over 8 tokens of the step of 0.3 D; the third token is none that the reference was asked about."""
    o = make(reference={"coefficient": 0.3, "estimator": estimator})
    s = streams([-1.0, -3.0, -2.0], reference_logp=[-1.0 - math.log(2), -3.0 + math.log(4), NAN])
    loss, gradient, means = run(o, s, surrogate=8, reference=8)
    assert loss == pytest.approx(0.3 * value / 8)
    assert means["reference_loss"] == pytest.approx(loss)
    assert gradient == pytest.approx([0.3 * slope[0] / 8, 0.3 * slope[1] / 8, 0.0])
    k3 = (0.5 - 1 + math.log(2)) + (4 - 1 - math.log(4))
    assert means["reference_kl"] == pytest.approx(k3 / 2)


def test_a_coefficient_of_0_logs_the_kl_and_teaches_nothing() -> None:
    s = streams([-1.0], reference_logp=[-1.0 - math.log(2)])
    o = make(reference={"coefficient": 0})
    loss, gradient, means = run(o, s, reference=1)
    assert (loss, gradient, "reference_loss" in means) == (0.0, [0.0], False)
    assert means["reference_kl"] == pytest.approx(math.log(2) - 0.5)
    assert not o.learns_everywhere


def row(score: float, logps: list[float], reference: list[float] | None = None, source: Any = "student") -> Rollout:
    mask = [1] * (len(logps) - 1) + [0]
    completion = Completion(range(len(logps)), logps, mask, "stop")
    return Rollout("t", 0, (9,), completion, Grade(score, None, ""), reference_logp=reference, source=source)


def test_k1_is_taken_off_the_advantage_and_is_no_loss() -> None:
    """Two equal scores: advantage 0, less 0.5 (log π_old - log π_ref) on the model's own tokens."""
    o = make(reference={"coefficient": 0.5, "estimator": "k1"})
    rows = [row(0.0, [-1.0, -2.0, 0.0], [-1.5, -1.0, NAN]), row(0.0, [-1.0, 0.0], [-1.0, NAN])]
    done = credit(o, rows, 0)
    assert [list(r.advantage) for r in done if r.advantage is not None] == [[-0.25, 0.5, 0.0], [0.0, 0.0]]
    assert not o.learns_everywhere
    s = streams([-1.0, -2.0], reference_logp=[-1.5, -1.0], advantage=[-0.25, 0.5])
    loss, _, means = run(o, s, surrogate=2, reference=2)
    assert loss == pytest.approx((0.25 - 0.5) / 2) and "reference_loss" not in means


def test_k1_as_advantage_and_k2_as_loss_have_one_gradient_on_policy() -> None:
    reference, logp = [-1.5, -1.0], [-1.0, -2.0]
    penalty = [-0.5 * (a - b) for a, b in zip(logp, reference, strict=True)]
    k1 = run(make(reference={"coefficient": 0.5, "estimator": "k1"}), streams(logp, advantage=penalty), surrogate=2)[1]
    k2 = run(
        make(reference={"coefficient": 0.5, "estimator": "k2"}), streams(logp, reference_logp=reference), reference=2
    )[1]
    assert k1 == pytest.approx(k2)


def test_k1_needs_a_surrogate() -> None:
    with pytest.raises(ValidationError, match="k1 is taken off the advantage"):
        Objective.model_validate({"method": "gkd", "reference": {"coefficient": 0.1, "estimator": "k1"}})


def test_every_rollout_of_the_students_counts_for_the_reference_and_every_one_for_the_entropy() -> None:
    rows = [row(1.0, [-1.0] * 4), row(0.0, [-1.0] * 3), row(0.0, [-1.0] * 6, source="teacher")]
    tokens = make(reference={"coefficient": 0.1}, entropy={"coefficient": 0.1})
    assert token_counts(tokens, rows, teachable=[False] * 3) == Denominators(5, 0, 0, reference=5, entropy=10)
    means = {"coefficient": 0.1, "aggregate": "sequence_mean"}
    assert token_counts(make(reference=means, entropy=means), rows) == Denominators(5, 0, 0, reference=2, entropy=3)
    assert Denominators(1, 2, 3, 4, 5) + Denominators(10, 20, 30, 40, 50) == Denominators(11, 22, 33, 44, 55)


def test_the_entropy_bonus_by_hand() -> None:
    """-0.2 (0.5 + 1.5) / 4, and every token pulls its entropy up by 0.2 / 4."""
    s = streams([-1.0, -1.0], entropy=[0.5, 1.5])
    assert s.entropy is not None
    s.entropy.requires_grad_()
    o = make(entropy={"coefficient": 0.2})
    loss, _ = total(o, s, Denominators(entropy=4), 0)
    loss.backward()
    assert loss.item() == pytest.approx(-0.1)
    assert s.entropy.grad is not None and s.entropy.grad.tolist() == pytest.approx([-0.05, -0.05])
    assert o.learns_everywhere and make(reference={"coefficient": 0.1}).learns_everywhere
    assert Objective.model_validate({"method": "sft"}).learns_everywhere
    assert not make().learns_everywhere


def test_the_entropy_bonus_needs_entropies() -> None:
    with pytest.raises(ValueError, match="needs the stream `entropy`"):
        total(make(entropy={"coefficient": 0.2}), streams([-1.0]), Denominators(), 0)


def test_truncated_importance_sampling_by_hand() -> None:
    """Three tokens of advantage 1, 1 and -2. Trainer over sampler when the step began: e^0.1, e^1 and e^-1, cut at 2.
    Student over trainer now: 1, 1.1 and 0.6, of which the last is clipped at 0.8: with a negative advantage it teaches
    nothing, and its loss is 0.8 · 2 · e^-1."""
    o = make(surrogate={"importance_cap": 2.0, "clip_low": 0.2, "clip_high": 0.3})
    sampler = [-1.0, -3.0, -1.0]
    old = [-0.9, -2.0, -2.0]
    now = [-0.9, -2.0 + math.log(1.1), -2.0 + math.log(0.6)]
    s = streams(now, behaviour=sampler, old_logp=old, advantage=[1.0, 1.0, -2.0])
    loss, gradient, means = run(o, s, surrogate=3)
    assert loss == pytest.approx((-math.exp(0.1) - 2 * 1.1 + 0.8 * 2 * math.exp(-1)) / 3)
    assert gradient == pytest.approx([-math.exp(0.1) / 3, -2 * 1.1 / 3, 0.0])
    assert means["importance"] == pytest.approx((math.exp(0.1) + 2 + math.exp(-1)) / 3)
    assert means["importance_capped"] == pytest.approx(1 / 3)
    assert means["ratio"] == pytest.approx((1 + 1.1 + 0.6) / 3)
    assert [means["clip_low_fraction"], means["clip_high_fraction"]] == pytest.approx([1 / 3, 0.0])


def test_with_one_update_the_trainers_own_log_probs_are_the_old_ones() -> None:
    """Without a second update the ratio is 1 and only the weight is left, whatever the sampler said."""
    o = make(surrogate={"importance_cap": 2.0})
    s = streams([-1.0, -1.0], behaviour=[-1.5, -4.0], advantage=[1.0, -1.0])
    loss, gradient, means = run(o, s, surrogate=1)
    assert loss == pytest.approx(-math.exp(0.5) + 2)
    assert gradient == pytest.approx([-math.exp(0.5), 2.0])
    assert means["ratio"] == 1 and means["clip_fraction"] == 0


def test_weights_of_tokens_without_an_advantage_do_not_count() -> None:
    o = make(surrogate={"importance_cap": 2.0})
    s = streams([-1.0, -1.0], behaviour=[-1.0, NAN], advantage=[1.0, 0.0])
    loss, gradient, means = run(o, s, surrogate=2)
    assert (loss, gradient) == (-0.5, [-0.5, 0.0])
    assert means["importance"] == 1 and means["importance_capped"] == 0


def test_band_and_cap_are_not_had_together() -> None:
    with pytest.raises(ValidationError, match="two answers to one question"):
        Objective.model_validate({"method": "mopd", "surrogate": {"importance_cap": 2.0}})


@pytest.mark.parametrize("method", ["vold", "gkd", "sod"])
def test_presets_have_none_of_these(method: str) -> None:
    o = Objective.model_validate({"method": method})
    assert o.reference is None and o.entropy is None and not o.learns_everywhere
    assert o.surrogate is None or o.surrogate.importance_cap is None


def test_a_copy_of_a_rollout_keeps_what_was_asked() -> None:
    one = row(0.0, [-1.0, 0.0], [-2.0, NAN])
    assert dataclasses.replace(one, old_logp=[-1.5, NAN]).reference_logp == pytest.approx([-2.0, NAN], nan_ok=True)
