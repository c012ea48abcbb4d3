"""Masks and weights of the user's own: what they get, what they may return, and how a bad one is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vold.errors import ConfigError, TrainingError
from vold.objective import Objective, credit, needs_teacher
from vold.objective.custom import call_mask, call_weight, try_function
from vold.types import Completion, Grade, Rollout, TokenScores
from vold.types.named import is_named

MODULE = '''
def short_ones(rollouts):
    return [1.0 if len(r.completion.ids) < 3 else 0.0 for r in rollouts]

def fading(rollouts):
    """0.9 a step of the rollout, the fixed decay that SOD compares with."""
    out = []
    for r in rollouts:
        step, last, row = -1, 0, []
        for action in r.completion.action_mask.tolist():
            step += action and not last
            row.append(0.9 ** step if action else 0.0)
            last = action
        out.append(row)
    return out

def doubled(rollouts): return [2 * r.completion.action_mask for r in rollouts]
def holes(rollouts): return [r.completion.logps * float("nan") for r in rollouts]
def flat(rollouts): return [r.completion.logps[:1] for r in rollouts]

def two_arguments(a, b): return []
def too_few(rollouts): return [1.0]
def negative(rollouts): return [-1.0 for _ in rollouts]
def nan(rollouts): return [float("nan") for _ in rollouts]
def words(rollouts): return ["1" for _ in rollouts]
def raises(rollouts): return [1 / 0]
def generator(rollouts): return (1.0 for _ in rollouts)
number = 3
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    return "own_rules"


def rollout(score: float, mask: list[int], teacher: float | None = None) -> Rollout:
    n = len(mask)
    scores = None if teacher is None else TokenScores((teacher,) * n)
    return Rollout(
        "t", 0, (9,), Completion(tuple(range(n)), (-1.0,) * n, tuple(mask), "stop"), Grade(score, None, ""), scores
    )


def test_a_mask_of_ones_own_decides_who_is_asked_and_weighs_the_loss() -> None:
    o = Objective.model_validate({"method": "vold", "teacher_loss": {"mask": "own_rules:short_ones"}})
    rows = [rollout(1, [1, 1], -2.0), rollout(0, [1, 1, 1], -2.0)]
    assert needs_teacher(o, rows) == [True, False]
    weights = [r.teacher_weight for r in credit(o, rows, 0)]
    assert [w.tolist() for w in weights if w is not None] == [[1.0, 1.0], [0.0, 0.0, 0.0]]
    assert o.try_functions() == ["own_rules:short_ones"]


def test_a_weight_of_ones_own_multiplies_the_reward_and_is_kept() -> None:
    o = Objective.model_validate({"method": "opd", "teacher_advantage": {"weight": "own_rules:fading"}})
    (got,) = credit(o, [rollout(0, [1, 0, 1, 1, 0, 1], -3.0)], 0)
    assert got.advantage == pytest.approx((-2, 0, -1.8, -1.8, 0, -1.62))
    assert got.token_values["own_weight"] == pytest.approx((1, 0, 0.9, 0.9, 0, 0.81))
    loss = Objective.model_validate({"method": "vold", "teacher_loss": {"weight": "own_rules:fading"}})
    (got,) = credit(loss, [rollout(0.5, [1, 0, 1], -3.0)], 0)
    assert got.teacher_weight == pytest.approx((0.5, 0, 0.45))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "cannot be imported"),
        ("own_rules:absent", "nothing of that name"),
        ("own_rules:number", "cannot be called"),
        ("os:system", "not a Python function"),
        ("own_rules:two_arguments", "other arguments"),
        ("own_rules:too_few", "1 numbers for 2 rollouts"),
        ("own_rules:negative", r"-1.0 for rollout 0"),
        ("own_rules:nan", "nan for rollout 0"),
        ("own_rules:words", "'1' for rollout 0"),
        ("own_rules:raises", "ZeroDivisionError"),
        ("own_rules:generator", "generator for 2 rollouts"),
    ],
)
def test_a_function_that_cannot_serve_is_refused_before_the_run(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        try_function(name, per_token=False)


def test_a_weight_may_be_an_array() -> None:
    (got,) = call_weight("own_rules:doubled", [rollout(0, [1, 0, 1])])
    assert got.tolist() == [2.0, 0.0, 2.0] and got.dtype == "float64"
    with pytest.raises(TrainingError, match="nan for token 0 of rollout 0"):
        call_weight("own_rules:holes", [rollout(0, [1])])
    with pytest.raises(TrainingError, match="1 numbers for 2 tokens of rollout 0"):
        call_weight("own_rules:flat", [rollout(0, [1, 1])])


def test_a_weight_needs_a_number_a_token() -> None:
    try_function("own_rules:fading", per_token=True)
    with pytest.raises(ConfigError, match="float for 2 tokens of rollout 0"):
        try_function("own_rules:short_ones", per_token=True)


def test_a_function_that_fails_in_a_step_names_itself() -> None:
    with pytest.raises(TrainingError, match="own_rules:raises"):
        call_mask("own_rules:raises", [rollout(0, [1])])
    with pytest.raises(TrainingError, match="2 rollouts"):
        call_weight("own_rules:too_few", [rollout(0, [1]), rollout(0, [1])])


@pytest.mark.parametrize("name", ["failed", "a b:c", ":f", "m:", "m:f:g", "m:f()", "1m:f"])
def test_what_does_not_name_a_function(name: str) -> None:
    assert not is_named(name)


def test_the_run_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    import tiny
    from vold.training.distill import distill

    over: dict[str, Any] = {"objective": {"method": "vold", "teacher_loss": {"mask": "own_rules:raises"}}}
    made = tiny.recipe(tmp_path, distill=over)
    with pytest.raises(ConfigError, match="made-up group"):
        distill(made)
    assert not (tmp_path / "run").exists()
