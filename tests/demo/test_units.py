"""What decides a unit of a study, and what is read off its answers, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vold.demo.plan import _pairs
from vold.demo.units import Job, Unit, _readings
from vold.evals.study_results import ArmResult, Measure, StudyResults, UnitResult

RECIPE = str(Path(__file__).parents[2] / "recipes" / "demo.yaml")


def digests(makers: Mapping[str, str], **keys: object) -> tuple[str, str]:
    dotted = {key.replace("_", "."): value for key, value in keys.items()} | {"run.seed": 1}
    job = Job(
        unit=Unit("a", 1e-3, 1, "test"),
        recipe=RECIPE,
        stage="distill",
        keys=dotted,
        measures={},
        models="/models",
        makers=makers,
        work=Path("/cells"),
    ).addressed()
    return job.trained, job.judged


def test_models_that_a_unit_does_not_name_do_not_decide_it() -> None:
    small, other = {"small": "makers:one"}, {"small": "makers:two"}
    assert digests(small) == digests(other) == digests({})
    named = digests(small, teacher_path="{models}/small")
    assert named != digests(other, teacher_path="{models}/small")
    assert named == digests({**small, "large": "makers:two", "sm": "makers:two"}, teacher_path="{models}/small")


def test_reading_and_reasoning_are_told_apart() -> None:
    """Of four answers that say what they read three are right about it, and of those one is right."""
    rows: list[Mapping[str, object]] = [
        {"read": True, "outcome": "right"},
        {"read": True, "outcome": "wrong"},
        {"read": True, "outcome": "unreadable"},
        {"read": False, "outcome": "right"},
        {"read": None, "outcome": "right"},
    ]
    found = dict(_readings({"image": rows, "text": [{"outcome": "right"}], "blind": rows[3:4]}))
    assert found == {
        "image.read": Measure(accuracy=3 / 4, n=4),
        "image.reasoned": Measure(accuracy=1 / 3, n=3),
        "blind.read": Measure(accuracy=0.0, n=1),
    }


def test_a_plan_takes_the_spread_of_a_kind_of_problem_from_that_kind() -> None:
    """Differences of 0.1, 0.2 and 0.3 between sums have the variance 0.01; those of all problems do not differ."""

    def arm(sums: list[float]) -> ArmResult:
        rows = [Measure(accuracy=0.5, n=100, stderr=0.05, by_kind={"sum": value}) for value in sums]
        seeds = tuple(UnitResult(seed=i, rate=0.1, measures={"text": m}, seconds=1.0) for i, m in enumerate(rows))
        return ArmResult(0.1, {}, seeds)

    arms = {"one": arm([0.4, 0.6, 0.8]), "two": arm([0.3, 0.4, 0.5])}
    results = StudyResults(arms=arms, claims={}, commit="", wall_seconds=1.0)
    (sums,) = _pairs(results, "text/sum")
    assert sums.seeds == pytest.approx(0.01)
    assert sums.items == 0.0
    assert [s.seeds for s in _pairs(results, "text")] == [0.0]
    assert list(_pairs(results, "text/span")) == []
