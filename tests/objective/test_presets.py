"""Each preset against the numbers of its source, and one step of those whose loss is their own, by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from vold.objective import PRESETS, Denominators, Needs, Objective, Streams, averages, token_counts, total
from vold.types import Completion, Grade, Rollout

NAN = math.nan


def make(method: str | None, **over: Any) -> Objective:
    return Objective.model_validate({"method": method, **over})


def resolved(method: str, reading: str | None = None) -> dict[str, Any]:
    return make(method, reading=reading).model_dump(exclude_none=True)


def pick(tree: dict[str, Any], *paths: str) -> list[Any]:
    out = []
    for path in paths:
        node: Any = tree
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        out.append(node)
    return out


CLIPS = ("surrogate.clip_low", "surrogate.clip_high", "surrogate.aggregate")


@pytest.mark.parametrize(
    ("method", "clips", "others"),
    [
        ("sod", [0.2, 0.28, "token_mean"], {"outcome.weight": 1, "teacher_advantage.coefficient": 1,
         "teacher_advantage.steps.eps": 1e-6, "teacher_advantage.steps.delta": 0.2, "outcome.signed": True,
         "outcome.overlong.buffer": 1024 / 20480, "outcome.tool_reward.ceiling": -0.6}),
        ("uni_opd", [0.2, 0.28, "sequence_mean"], {"outcome": None, "teacher_advantage.balance.ratio": 1,
         "teacher_advantage.margin.delta": 0.4, "teacher_advantage.margin.statistic": "mean",
         "teacher_advantage.margin.direction": "both", "teacher_advantage.gate": 10}),
        ("prefix_teach", [None, None, "token_mean"], {"outcome": None, "teacher_advantage.prefix.margin": "log_gap"}),
        ("mopd", [None, None, "sequence_mean"], {"outcome.weight": 1, "teacher_advantage.against": "current"}),
        ("gkd", [None, None, None], {"teacher_loss.estimator": "jsd", "teacher_loss.teacher_share": 0.5,
         "teacher_loss.mask": "none", "mix.student_share": 0.5}),
        ("minillm", [0.2, 0.2, "token_mean"], {"teacher_loss.estimator": "reverse_kl",
         "teacher_advantage.future.discount": 1, "teacher_advantage.future.from_next": True}),
        ("dapo", [0.2, 0.28, "token_mean"], {"outcome.overlong.buffer": 4096 / 20480, "teacher_loss": None}),
        ("gspo", [3e-4, 4e-4, "sequence_mean"], {"surrogate.ratio": "sequence", "outcome.normalise": "std"}),
        ("dr_grpo", [0.2, 0.2, "token_sum"], {"outcome.normalise": "none"}),
        ("hypereyes", [0.2, 0.3, "token_mean"], {"teacher_loss.coefficient": 0.05, "teacher_loss.mask": "zero_score",
         "teacher_loss.aggregate": "sequence_mean", "teacher_loss.estimator": "k2"}),
    ],
)  # fmt: skip
def test_a_preset_has_the_numbers_of_its_source(method: str, clips: list[Any], others: dict[str, Any]) -> None:
    tree = resolved(method)
    assert pick(tree, *CLIPS) == clips
    assert pick(tree, *others) == list(others.values())


@pytest.mark.parametrize(
    ("method", "reading", "changes"),
    [
        ("vold", "supplement", {"teacher_loss.coefficient": 1e-3, "teacher_loss.aggregate": "token_sum"}),
        ("sod", "library", {"teacher_advantage.steps.delta": 0.5}),
        ("uni_opd", "paper", {"teacher_advantage.margin.form": "broadcast",
         "teacher_advantage.margin.statistic": "minmax", "teacher_advantage.margin.direction": "correct_up"}),
        ("uni_opd", "mask", {"teacher_advantage.margin.form": "mask"}),
        ("kdrl", "group_mask", {"teacher_loss.mask": "group_failed"}),
        ("kdrl", "response_mask", {"teacher_loss.mask": "failed"}),
        ("dr_grpo", "code", {"surrogate.aggregate": "budget_mean"}),
        ("gkd", "reverse", {"teacher_loss.teacher_share": 1.0}),
    ],
)  # fmt: skip
def test_a_reading_changes_what_it_says_and_nothing_else(method: str, reading: str, changes: dict[str, Any]) -> None:
    first, second = resolved(method), resolved(method, reading)
    assert pick(second, *changes) == list(changes.values())
    for path, value in {**changes, "reading": None}.items():
        for tree in (first, second):
            *parents, last = path.split(".")
            node = tree
            for part in parents:
                node = node[part]
            node[last] = value
    assert first == second


def test_every_reading_of_every_method_can_run_and_reads_back_equal() -> None:
    for method, preset in PRESETS.items():
        for reading in (None, *preset.variants):
            o = make(method, reading=reading)
            assert Objective.model_validate_json(o.model_dump_json()) == o
        assert (preset.fidelity == "in the style of") <= bool(preset.missing), method


def test_a_key_beside_a_reading_wins() -> None:
    o = make("sod", reading="library", teacher_advantage={"steps": {"delta": 0.9}})
    assert o.teacher_advantage is not None and o.teacher_advantage.steps is not None
    assert o.teacher_advantage.steps.delta == 0.9


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("grpo", Needs()),
        ("vold", Needs(logp=True)),
        ("prefix_teach", Needs(logp=True, candidates=8)),
        ("gkd", Needs(logp=True, logits=True)),
        ("minillm", Needs(logp=True, logits=True)),
    ],
)
def test_what_a_method_needs_of_its_teacher(method: str, needs: Needs) -> None:
    assert make(method).needs == needs


def test_candidates_are_asked_for_as_far_as_any_slot_wants_them() -> None:
    kl = {"estimator": "reverse_kl", "mask": "none"}
    both = make("prefix_teach", teacher_loss=kl | {"top_k": {"k": 20, "support": "student"}})
    assert both.needs == Needs(logp=True, candidates=20)
    assert make("gkd", reading="top_k").needs == Needs(logp=True, top_k=32)
    assert "32 likeliest" in make("gkd", reading="top_k").needs.words
    assert Needs().words == "nothing"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"method": "vold", "reading": "paper"}, "no such reading"),
        ({"method": None, "reading": "paper", "nll": {}}, "one of a method"),
        ({"method": "prefix_teach", "teacher_advantage": {"prefix": {"boundary": "["}}}, "no regular expression"),
        ({"method": "prefix_teach", "teacher_advantage": {"prefix": {"boundary": "x*"}}}, "matches nothing at all"),
        ({"method": "vold", "teacher_loss": {"mask": "faild"}}, "no such mask"),
        ({"method": "vold", "teacher_loss": {"weight": "half"}}, "names a function"),
        ({"method": "vold", "teacher_loss": {"top_k": {"k": 4}}}, "no use for candidates"),
        ({"method": "gkd", "teacher_loss": {"top_k": {"k": 4, "form": "stop_gradient"}}}, "only reverse KL"),
        ({"method": "gkd", "teacher_loss": {"mask": "failed"}}, "every rollout"),
        ({"method": "gkd", "teacher_loss": {"top_k": {"k": 4}}}, "not sampled by it"),
        ({"method": "mopd", "teacher_advantage": {"margin": {}}}, "known before the update"),
        ({"method": "sod", "outcome": {"signed": False}}, "negative rewards"),
        ({"method": "uni_opd", "teacher_advantage": {"balance": {"ratio": -1.0}}}, "cannot be negative"),
    ],
)
def test_what_cannot_run_is_refused(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Objective.model_validate(over)


# -- losses that are a method's own -----------------------------------------------------------------------------------


def streams(logp: list[float], behaviour: list[float], advantage: list[float], **more: list[float]) -> Streams:
    """Tokens of rollouts of two tokens each, in float64."""
    n = len(logp)
    columns = {"teacher_logp": [NAN] * n, "teacher_weight": [0.0] * n, **more}
    flat = {k: torch.tensor(v, dtype=torch.float64) for k, v in columns.items()}
    index = torch.arange(n) // 2
    f64 = [torch.tensor(v, dtype=torch.float64) for v in (logp, behaviour, advantage)]
    return Streams(
        f64[0].requires_grad_(), f64[1], f64[2], sequence_index=index, sequence_length=torch.full((n,), 2), **flat
    )


def loss_of(
    o: Objective, s: Streams, rollouts: int = 1, tokens: int = 2
) -> tuple[float, list[float], dict[str, float]]:
    rows = [
        Rollout("t", 0, (1,), Completion((1,) * tokens, (0.0,) * tokens, (1,) * tokens, "stop"), Grade(0, None, ""))
    ] * rollouts
    loss, metrics = total(o, s, token_counts(o, rows, max_new_tokens=10), 0)
    (gradient,) = torch.autograd.grad(loss, s.logp)
    return loss.item(), gradient.tolist(), {k: float(v) for k, v in metrics.items()}


def approx(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-14)


def test_gspo_has_one_ratio_a_response() -> None:
    """Log ratios 4e-4 and 0 have the mean 2e-4, inside the clip: loss -e^(2e-4) A, and each token gets half of its
    gradient. A mean of 5e-4 is clipped above for a good response and not for a bad one."""
    inside, clipped = [4e-4, 0.0], [1e-3, 0.0]
    for gaps, advantage, held in ((inside, 2.0, False), (clipped, 2.0, True), (clipped, -2.0, False)):
        s = streams([g - 1 for g in gaps], [-1.0, -1.0], [advantage] * 2)
        loss, gradient, metrics = loss_of(make("gspo"), s)
        ratio = math.exp(sum(gaps) / 2)
        assert loss == approx(-advantage * (1 + 4e-4 if held else ratio))
        assert gradient == approx([0.0 if held else -advantage * ratio / 2] * 2)
        assert averages(metrics)["ratio"] == approx(ratio)
        assert averages(metrics)["clip_fraction"] == float(held)


def test_the_ratio_of_a_response_is_taken_over_all_of_its_tokens() -> None:
    s = streams([-0.9, -1.0], [-1.0, -1.0], [1.0, 0.0])
    o = make("gspo", surrogate={"clip_low": 0.5, "clip_high": 0.5})
    assert loss_of(o, s)[1] == approx([-math.exp(0.05) / 2, 0.0])


def test_mopd_takes_the_teachers_reward_at_the_update_and_drops_unmatched_tokens() -> None:
    """MiMo Eq. 7 to 9 written out: gradient of -(1/|y|) w (log π_T - log π_θ + A) log π_θ with w and the bracket
    detached, and w = 0 outside the band. Ratios e^0.1 and e^0.7 (over 2)."""
    s = streams([-0.9, -0.3], [-1.0, -1.0], [0.5, 0.5], teacher_logp=[-0.4, -0.4], live_weight=[1.0, 1.0])
    loss, gradient, metrics = loss_of(make("mopd"), s)
    assert gradient == approx([-math.exp(0.1) * (0.5 + 0.5) / 2, 0.0])
    assert loss == approx(-math.exp(0.1) * 1.0 / 2)
    assert averages(metrics)["dropped_fraction"] == 0.5
    wide = make("mopd", surrogate={"band": {"high": 3.0}})
    assert loss_of(wide, s)[1] == approx([-math.exp(0.1) / 2, -math.exp(0.7) * (-0.1 + 0.5) / 2])


def test_a_live_reward_of_an_unasked_token_is_not_read() -> None:
    s = streams([-1.0, -1.0], [-1.0, NAN], [1.0, 0.0], teacher_logp=[NAN, NAN], live_weight=[0.0, 0.0])
    assert loss_of(make("mopd"), s)[1] == approx([-0.5, 0.0])
    alone = streams([-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], teacher_logp=[-3.0, NAN], live_weight=[2.0, 0.0])
    assert loss_of(make("mopd", outcome=None), alone)[1] == approx([2.0, 0.0])


def test_the_gate_drops_tokens_on_which_the_models_are_worlds_apart() -> None:
    """Gaps 10 (dropped), 9.5 (kept): the denominators stay as they are."""
    s = streams([-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], teacher_logp=[-11.0, -10.5])
    _, gradient, metrics = loss_of(make("uni_opd"), s)
    assert gradient == approx([0.0, -0.5])
    assert averages(metrics)["dropped_fraction"] == 0.5
    up = streams([-11.0, -1.0], [-11.0, -1.0], [1.0, 1.0], teacher_logp=[-0.5, NAN])
    assert loss_of(make("uni_opd"), up)[1] == approx([0.0, -0.5])  # both directions; an unasked token is not gated


def test_a_divergence_is_weighed_summed_and_back_propagated() -> None:
    o = make("gkd", mix=None, teacher_loss={"coefficient": 0.5})
    s = streams([-1.0, -1.0], [NAN, NAN], [0.0, 0.0], teacher_weight=[1.0, 0.0])
    parameter = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    rough = Streams(**{**vars(s), "divergence": torch.stack([parameter * 2, torch.tensor(NAN).double()])})
    loss, _ = total(o, rough, Denominators(teacher_loss=4), 0)
    loss.backward()
    assert loss.item() == approx(0.5 * 6 / 4)
    assert parameter.grad is not None and parameter.grad.item() == approx(0.25)
    with pytest.raises(ValueError, match="divergence"):
        total(o, s, token_counts(o, []), 0)


def test_sods_loss_of_a_negative_advantage_is_bounded_as_in_its_trainer() -> None:
    """Advantage -1 and a ratio of e^2 = 7.39 on one token: 3, not 7.39; all of the clip fraction is that token."""
    streams = Streams(
        logp=torch.tensor([1.0]), behaviour_logp=torch.tensor([-1.0]), advantage=torch.tensor([-1.0]),
        teacher_logp=torch.tensor([-1.0]), teacher_weight=torch.tensor([0.0]),
        sequence_index=torch.tensor([0]), sequence_length=torch.tensor([1]),
    )  # fmt: skip
    loss, sums = total(Objective(method="sod"), streams, Denominators(surrogate=1), 0)
    assert loss.item() == 3.0
    assert averages({k: float(v) for k, v in sums.items()})["clip_fraction"] == 1.0
    unbounded = Objective.model_validate({"method": "sod", "surrogate": {"dual_clip": None}})
    assert total(unbounded, streams, Denominators(surrogate=1), 0)[0].item() == pytest.approx(math.exp(2))


@pytest.mark.parametrize("change", [{"dual_clip": 1.2}, {"clip_low": None, "clip_high": None}])
def test_a_dual_clip_is_a_bound_beyond_the_upper_clip(change: dict[str, float | None]) -> None:
    with pytest.raises(ValidationError, match="beyond the upper clip"):
        Objective.model_validate({"method": "sod", "surrogate": change})


def test_the_opd_reading_with_a_future_discounts_by_position() -> None:
    future = Objective.model_validate({"method": "opd", "reading": "future"}).teacher_advantage
    assert future is not None and future.future is not None and future.future.per == "position"


def test_dr_grpos_code_divides_by_the_budget() -> None:
    """Two tokens at ratio 1 with advantage 1/2, one of two rollouts, budget 10: the sum is 1."""
    s = streams([-1.0, -1.0], [-1.0, -1.0], [0.5, 0.5])
    assert loss_of(make("dr_grpo"), s, rollouts=2)[0] == approx(-1 / 2)
    assert loss_of(make("dr_grpo", reading="code"), s, rollouts=2)[0] == approx(-1 / 20)


def test_the_teachers_traces_are_not_counted_among_the_students_rollouts() -> None:
    o = make("gkd", outcome={}, surrogate={})
    mine = Rollout("t", 0, (1,), Completion((1, 2), (0.0,) * 2, (1, 1), "stop"), Grade(0, None, ""))
    trace = Completion((1, 2, 3), (0.0,) * 3, (1, 1, 1), "stop")
    rows = [mine, dataclasses.replace(mine, completion=trace, source="teacher")]
    counts = token_counts(o, rows)
    assert (counts.surrogate, counts.teacher_loss) == (2, 5)


def test_another_weight_takes_the_options_of_the_presets_own_away() -> None:
    """`sg_opd` weighs by `agree` and `differ`, which `prefix_drift` does not take."""
    drift = "vold.objective.gates:prefix_drift"
    term = make("sg_opd", teacher_advantage={"weight": drift, "weight_options": {"gamma": 0.3}}).teacher_advantage
    assert term is not None and (term.weight, term.weight_options) == (drift, {"gamma": 0.3})
    same = make("sg_opd", teacher_advantage={"weight_options": {"agree": 2.0}}).teacher_advantage
    assert same is not None and same.weight_options == {"agree": 2.0, "differ": 0.75}
