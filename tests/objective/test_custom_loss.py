"""Estimators and loss terms of the user's own: what they get, what they do to a loss, and how a bad one is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vold.errors import ConfigError, TrainingError
from vold.objective import Denominators, Objective, Streams, averages, needs_teacher, token_counts, total
from vold.types import Completion, Grade, Rollout

MODULE = """
import torch

def squared(student, teacher): return (student - teacher).square()
def surprise(streams, *, power=1.0): return -streams.logp * power
def apart(streams): return (streams.logp - streams.teacher_logp).abs()
def one_argument(streams, needed): return streams.logp
def short(student, teacher): return student[:1]
def nothing(student, teacher): return None
def flat(student, teacher): return torch.zeros_like(student)
def holes(streams): return streams.logp * float("nan")
def raises(streams): return streams.no_such
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_losses.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)


def make(**terms: Any) -> Objective:
    return Objective.model_validate({"method": None, **terms})


def streams(dtype: torch.dtype = torch.float64) -> Streams:
    """Two tokens of one rollout and one of another."""

    def row(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    return Streams(
        row(-1.0, -2.0, -0.5).requires_grad_(), row(-1.0, -2.0, -0.5), row(0.0, 0.0, 0.0), row(-3.0, -2.5, -0.5),
        row(1.0, 0.5, 0.0), torch.tensor([0, 0, 1]), torch.tensor([2, 2, 1]),
    )  # fmt: skip


def test_an_estimator_of_ones_own_takes_the_place_of_k2() -> None:
    """β M d²: 0.1 · (1 · 4 + 0.5 · 0.25) over 3 tokens; by log π_θ 0.1 · M · 2 d / 3."""
    o = make(teacher_loss={"estimator": "own_losses:squared", "coefficient": 0.1, "mask": "none"})
    assert o.try_functions() == ["own_losses:squared"]
    assert o.needs.words == "the sampled token's log-prob"
    s = streams()
    loss, _ = total(o, s, Denominators(teacher_loss=3), 0)
    (gradient,) = torch.autograd.grad(loss, s.logp)
    assert loss.item() == pytest.approx(0.1 * 4.125 / 3)
    assert gradient.tolist() == pytest.approx([0.1 * 4 / 3, 0.1 * 0.5 / 3, 0.0])


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("token_mean", 3.5 / 3), ("sequence_mean", (1.5 + 0.5) / 2), ("token_sum", 3.5 / 2), ("budget_mean", 3.5 / 20)],
)
def test_a_term_of_ones_own_is_averaged_as_any_other(aggregate: str, expected: float) -> None:
    """-log π_θ · 1 of every token: 1, 2 and 0.5."""
    o = make(own_loss={"function": "own_losses:surprise", "coefficient": 2.0, "aggregate": aggregate})
    rows = [
        Rollout("t", 0, (1,), Completion((1,) * n, (0.0,) * n, (1,) * n, "stop"), Grade(0, None, "")) for n in (2, 1)
    ]
    s = streams()
    loss, metrics = total(o, s, token_counts(o, rows, max_new_tokens=10), 0)
    assert loss.item() == pytest.approx(2 * expected)
    assert averages({k: float(v) for k, v in metrics.items()}) == {"own_loss": pytest.approx(2 * expected)}
    assert needs_teacher(o, rows) == [False, False]
    assert (o.uses_teacher, o.learns_everywhere, o.token_separable) == (False, True, False)


def test_its_coefficient_falls_and_its_options_reach_it() -> None:
    own = {"function": "own_losses:surprise", "options": {"power": 2.0}, "coefficient": 1.0, "anneal_per_step": 0.25}
    o = make(own_loss=own)
    assert o.try_functions() == ["own_losses:surprise"]
    assert total(o, streams(), Denominators(own_loss=1), 2)[0].item() == pytest.approx(0.5 * 2 * 3.5)


def test_a_term_that_compares_has_the_teacher_asked() -> None:
    o = make(own_loss={"function": "own_losses:apart", "mask": "none"})
    rows = [Rollout("t", 0, (1,), Completion((1,), (0.0,), (1,), "stop"), Grade(1.0, None, ""))]
    assert needs_teacher(o, rows) == [True]
    loss, metrics = total(o, streams(), Denominators(own_loss=3), 0)
    assert loss.item() == pytest.approx(2.5 / 3)
    assert metrics["scored_tokens"] == 3


@pytest.mark.parametrize(
    ("terms", "what", "got"),
    [
        ({"teacher_loss": {"estimator": "own_losses:short"}}, "fails on made-up tokens", r"\[1\] for \[5\]"),
        ({"teacher_loss": {"estimator": "own_losses:nothing"}}, "fails on made-up tokens", "NoneType for"),
        ({"teacher_loss": {"estimator": "own_losses:flat"}}, "has a gradient", "no gradient"),
        ({"teacher_loss": {"estimator": "own_losses:surprise"}}, "takes other arguments", "surprise"),
        ({"own_loss": {"function": "own_losses:holes"}}, "finite", "nan"),
        ({"own_loss": {"function": "own_losses:raises"}}, "fails on made-up tokens", "no_such"),
        ({"own_loss": {"function": "own_losses:one_argument"}}, "takes other arguments", "needed"),
        ({"own_loss": {"function": "own_losses:surprise", "options": {"pwr": 2}}}, "takes other arguments", "with pwr"),
        ({"own_loss": {"function": "own_losses:no"}}, "nothing of that name", "own_losses:no"),
    ],
)
def test_a_loss_that_cannot_run_is_refused_before_any_model_is_loaded(
    terms: dict[str, Any], what: str, got: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make(**terms).try_functions()
    assert error.match(what)
    assert error.match(got)


def test_one_that_fails_later_is_named() -> None:
    with pytest.raises(TrainingError, match="own_losses:short"):
        o = make(teacher_loss={"estimator": "own_losses:short"})
        total(o, streams(), Denominators(teacher_loss=3), 0)


def test_an_unknown_estimator_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'reverse_kl'"):
        make(teacher_loss={"estimator": "reverse_k"})
