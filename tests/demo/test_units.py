"""What decides a unit of a study, and what is read off its answers, by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies import study_dict
from vold.demo.plan import _claim, _line, _pairs, plan_study
from vold.demo.study import Running, run_study
from vold.demo.study_file import Study, load_study
from vold.demo.units import Job, Unit, _readings, _stepped, known_units
from vold.evals.claims import Claim
from vold.evals.power import Spread, detectable, seeds_for
from vold.evals.study_results import ArmResult, Measure, StudyResults, UnitResult
from vold.run.files import append_jsonl
from vold.run.lock import RunLock

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


class _Known:
    """Stands for stored results: a spread of three points, all of it between seeds."""

    def spread(self, claim: Claim) -> tuple[Spread, str]:
        return Spread(0.03**2, 0.0), "here"

    def is_share(self, measure: str) -> bool:
        return measure != "tokens"


@pytest.mark.parametrize(
    ("rule", "value", "stated", "holds_at", "true", "distance"),
    [
        ("gain", None, None, "{d}", 0.02, 0.02),
        ("gain", None, 0.05, "{d}", 0.05, 0.05),
        ("more than", 0.05, None, "0.05 + {d}", 0.07, 0.02),
        ("more than", 0.05, 0.08, "0.05 + {d}", 0.08, 0.03),
        ("more than", 0.05, 0.05, "0.05 + {d}", 0.05, 0.0),
        ("at least", 0.9, None, "0.9 + {d}", 0.92, 0.02),
        ("no gain", None, 0.05, "0.02 - {d}", 0.0, 0.02),
    ],
)
def test_a_plan_says_with_which_true_difference_a_rule_holds(
    rule: str, value: float | None, stated: float | None, holds_at: str, true: float, distance: float, tmp_path: Path
) -> None:
    """An interval has to lie above what the rule asks for: that it asks for more than 5 points costs 5 points."""
    whole = {"claim": "x", "better": "direct", "worse": None if rule == "at least" else "base", "measure": "reward"}
    claim = Claim.model_validate(whole | {"rule": rule, "value": value})
    study = Study.model_validate({**study_dict(tmp_path), "claims": {"c": claim}, "seeds": list(range(10, 18))})
    found = _claim(study, "c", claim, _Known(), stated)  # type: ignore[arg-type]
    d = detectable(8, 0.03, 0.05)
    signs = {"{d}": d, "0.05 + {d}": 0.05 + d, "0.9 + {d}": 0.9 + d, "0.02 - {d}": 0.02 - d}
    assert found.detectable == pytest.approx(signs[holds_at])
    assert found.difference == pytest.approx(true)
    assert found.needs == (seeds_for(distance, 0.03, 0.05) if distance else None)


def test_a_plan_takes_the_spread_of_a_number_that_is_no_share() -> None:
    """Differences of 1, 2 and 3 thousand tokens have the variance 1."""
    arms = {"one": [4.0, 6.0, 8.0], "two": [3.0, 4.0, 5.0]}
    rows = {
        name: [
            UnitResult(seed=i, rate=0.1, measures={"tokens": Measure(value=v)}, seconds=1.0) for i, v in enumerate(of)
        ]
        for name, of in arms.items()
    }
    results = StudyResults(
        arms={name: ArmResult(0.1, {}, tuple(of)) for name, of in rows.items()}, claims={}, commit="", wall_seconds=1.0
    )
    assert [s.seeds for s in _pairs(results, "tokens")] == pytest.approx([1.0])


def test_a_plan_of_a_number_that_is_no_share_is_in_its_own_unit(tmp_path: Path) -> None:
    """A difference that is stated in points is none of thousands of tokens: the claim's margin counts."""
    claim = Claim.model_validate(
        {"claim": "x", "better": "direct", "worse": "base", "measure": "tokens", "rule": "gain", "margin": 0.5}
    )
    raw = {**study_dict(tmp_path), "claims": {"c": claim}, "measures": {"tokens": "my_module:function"}}
    study = Study.model_validate(raw | {"seeds": list(range(10, 18))})
    found = _claim(study, "c", claim, _Known(), 0.05)  # type: ignore[arg-type]
    assert (found.share, found.difference) == (False, 0.5)
    line = _line(found)
    assert line[3] == "0.03" and line[5] == f"0.5: {seeds_for(0.5, 0.03, 0.05)}"


def test_what_a_study_beside_this_one_has_stored_is_done_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone, where no runs are, and whatever else lies there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunLock, "beat", 0.1)
    raw: dict[str, Any] = {**study_dict(tmp_path), "arms": {"base": {}}, "claims": {}}
    for name in ("one", "two"):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.yaml").write_text(yaml.safe_dump(raw))
    first = tmp_path / "studies" / "one" / "study.yaml"
    run_study(str(first))
    rows = [json.loads(line) for line in (first.parent / "units.jsonl").read_text().splitlines()]
    shutil.rmtree(tmp_path / "runs")
    shutil.copytree(first.parent, broken := first.parents[1] / "a broken one")
    (broken / "study.yaml").write_text("nosuch: key\n")
    (broken / "units.jsonl").write_text("<<<<<<< HEAD\n")
    (arm,) = plan_study(str(first.parents[1] / "two" / "study.yaml")).arms
    assert (arm.done, len(rows)) == (1, 1)
    run_study(str(first.parents[1] / "two" / "study.yaml"))
    assert not list((tmp_path / "runs").rglob("unit.json"))
    assert (first.parents[1] / "two" / "units.jsonl").read_text() == (first.parent / "units.jsonl").read_text()


def test_processes_at_one_study_keep_the_units_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each adds what it has done to what the list has by then."""
    monkeypatch.chdir(tmp_path)
    raw = {**study_dict(tmp_path), "arms": {"base": {}}, "claims": {}}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(raw))
    found = UnitResult(seed=1, rate=None, measures={}, seconds=1.0)
    one, two = (Running(file, load_study(file)) for _ in range(2))
    for running, name in ((one, "a"), (two, "b")):
        running.known[name, name] = found
        running._keep([])
    assert set(known_units(tmp_path / "units.jsonl")) == {("a", "a"), ("b", "b")}


def test_a_plan_counts_units_whose_first_rate_is_still_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of `b` is known, as it has one; where it starts is not before `a` has been swept."""
    monkeypatch.chdir(tmp_path)
    arms = {"a": {"stage": "sft", "rates": [1e-3, 1e-2]}, "b": {"stage": "distill", "after": "a", "rates": [1e-3]}}
    arms["c"] = {"stage": "distill", "after": "b", "rates": [1e-3]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**study_dict(tmp_path), "arms": arms, "claims": {}}))
    found = plan_study(str(tmp_path / "study.yaml")).arms
    assert [(one.arm, one.swept, one.tested, one.done) for one in found] == [
        ("a", 2, 2, 0),
        ("b", 1, 2, 0),
        ("c", 1, 2, 0),
    ]


@pytest.mark.parametrize(
    ("stage", "rows", "seconds"),
    [
        (
            "distill",
            [{"step": 0, "seconds_sample": 2.0, "seconds_update": 1.0}, {"step": 1, "seconds_sample": 4.0}],
            7.0,
        ),
        ("sft", [{"step": 0, "loss": 2.5, "seconds": 0.5}], 0.5),
        ("distill", [], 0.0),
        (None, [], 0.0),
    ],
)
def test_a_unit_that_goes_on_counts_the_steps_behind_it(
    stage: Any, rows: list[dict[str, float]], seconds: float, tmp_path: Path
) -> None:
    job = Job(unit=Unit("a", 1e-3, 1, "test"), recipe=RECIPE, stage=stage, keys={}, measures={}, models="", makers={},
              work=tmp_path, trained="ab")  # fmt: skip
    append_jsonl(job.home / str(stage) / "metrics.jsonl", rows)
    assert _stepped(job) == seconds
