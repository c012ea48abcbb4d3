"""Which groups can teach, under each kind of objective."""

from __future__ import annotations

from typing import Any

import pytest

from vold.objective import Objective
from vold.objective.signal import groups_that_teach
from vold.types import Completion, Grade, Rollout

PASSED, MIXED, FAILED = 0, 1, 2


def rollouts() -> list[Rollout]:
    """Three groups of two: both pass, one does, none does; log-probs of a reference that differ from the student's."""
    rows = [(PASSED, 1.0), (PASSED, 1.0), (MIXED, 1.0), (MIXED, 0.0), (FAILED, 0.0), (FAILED, 0.0)]
    made = Completion((5, 2), (-0.1, -0.2), (1, 1), "stop")
    return [Rollout("t", g, (1,), made, Grade(s, None, ""), reference_logp=(-1.0, -1.0)) for g, s in rows]


VOLD = {"method": "vold"}


@pytest.mark.parametrize(
    ("objective", "step", "teachable", "taught"),
    [
        ({"method": "grpo"}, 0, True, {MIXED}),
        (VOLD, 0, True, {MIXED, FAILED}),
        (VOLD, 0, False, {MIXED}),
        ({**VOLD, "teacher_loss": {"mask": "group_failed"}}, 0, True, {MIXED, FAILED}),
        ({**VOLD, "teacher_loss": {"mask": "passed"}}, 0, True, {PASSED, MIXED}),
        ({"method": "opd"}, 0, True, {PASSED, MIXED, FAILED}),
        ({"method": "opd"}, 0, False, set()),
        ({**VOLD, "teacher_loss": {"coefficient": 0.0}}, 0, True, {MIXED}),
        ({**VOLD, "teacher_loss": {"coefficient": 0.1, "anneal_per_step": 0.05}}, 1, True, {MIXED, FAILED}),
        ({**VOLD, "teacher_loss": {"coefficient": 0.1, "anneal_per_step": 0.05}}, 2, True, {MIXED}),
        ({"method": "grpo", "reference": {"coefficient": 0.1, "estimator": "k1"}}, 0, True, {MIXED}),
        ({"method": "grpo", "entropy": {"coefficient": 0.1}}, 0, True, {MIXED}),
    ],
)
def test_groups_that_teach(objective: dict[str, Any], step: int, teachable: bool, taught: set[int]) -> None:
    rows = rollouts()
    found = groups_that_teach(Objective.model_validate(objective), rows, step, [teachable] * len(rows), 10)
    assert found == taught


def test_a_penalty_on_length_makes_a_failed_group_teach() -> None:
    """DAPO's reward differs between two wrong answers of which one is at the end of its budget."""
    long = Completion(range(10), (-0.1,) * 10, (1,) * 10, "length")
    rows = [*rollouts()[4:], Rollout("t", FAILED, (1,), long, Grade(0.0, None, ""))]
    o = Objective.model_validate({"method": "dapo"})
    assert groups_that_teach(o, rows, 0, [False] * 3, 10) == {FAILED}
    assert groups_that_teach(o, rows[:2], 0, [False] * 2, 10) == set()
