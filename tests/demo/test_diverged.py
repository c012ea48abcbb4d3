"""Rates of a sweep at which training does not go through, and chosen ones at which it does not."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies import arm, begin_as_copies, results, study_dict
from vold.demo.study import Running, run_study
from vold.demo.study_file import load_study
from vold.demo.study_page import write_study_page
from vold.demo.units import Failed, Unit
from vold.demo.workers import all_of
from vold.errors import TrainingError
from vold.evals.study_results import Measure, UnitResult
from vold.evals.study_tables import table
from vold.run.files import write_json

TOO_HIGH = 100.0
"""With DECAY a step multiplies the weights by 1 - 10,000: after ten they are above what float32 holds, 3.4e38."""
DECAY = {"distill.steps": 12, "distill.optimizer.weight_decay": 100.0, "distill.optimizer.warmup_steps": 0}


def stored(home: Path, raw: dict[str, Any]) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / "study.yaml").write_text(yaml.safe_dump(raw))
    return home / "study.yaml"


def swept(home: Path, ended: dict[float, list[str | None]]) -> Running:
    """A study whose sweep is done: at each rate a unit for each selection seed, which were right in 0.1 of cases at the
    first, 0.2 at the second and so on; or have ended in these words."""
    seeds = list(range(10, 10 + len(next(iter(ended.values())))))
    raw = study_dict(home) | {
        "arms": {"a": {"stage": "distill", "rates": [*ended]}},
        "claims": {},
        "select_seeds": seeds,
    }
    running = Running(file := stored(home, raw), load_study(file))
    for place, (rate, words) in enumerate(ended.items(), 1):
        for seed, diverged in zip(seeds, words, strict=True):
            measures = {} if diverged else {"image": Measure(accuracy=place / 10)}
            found = UnitResult(seed=seed, rate=rate, measures=measures, seconds=1.0, diverged=diverged)
            write_json(running.job(Unit("a", rate, seed, "select")).judgement / "unit.json", found)
    return running


@pytest.mark.parametrize(
    ("ended", "chosen"),
    [
        ({1e-3: [None], 1e-2: ["too high"]}, 1e-3),
        ({1e-3: ["too low"], 1e-2: [None]}, 1e-2),
        # a rate at which one seed of two does not go through is none to train with
        ({1e-3: [None, None], 1e-2: [None, "too high"]}, 1e-3),
    ],
)
def test_a_rate_that_diverges_is_not_chosen(
    ended: dict[float, list[str | None]], chosen: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    running = swept(tmp_path, ended)
    running.choose("a")
    assert running.chosen["a"] == chosen


def test_an_arm_without_a_rate_that_goes_through_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    running = swept(tmp_path, {1e-3: ["the loss is not finite"], 1e-2: ["the gradient is not finite"]})
    with pytest.raises(TrainingError, match="at none of the arm's learning rates") as caught:
        running.choose("a")
    assert caught.value.where.endswith("arms.a.rates")
    assert caught.value.got == "0.001: the loss is not finite; 0.01: the gradient is not finite"


def test_tables_and_pages_say_which_rates_diverged(tmp_path: Path) -> None:
    found = results({"a": replace(arm([0.1, 0.2]), diverged={"0.5": "the loss is not finite (step 3)"})})
    line = "Rates of a that could not be chosen, as training did not go through: 0.5: the loss is not finite (step 3)."
    assert f"\n\n{line}\n\n| claim |" in table(found)
    assert line in write_study_page(tmp_path, found, []).read_text()


def test_units_that_failed_are_named_in_one_error() -> None:
    first, second = (
        Failed(Unit("a", 0.5, seed, "test"), TrainingError("the loss is not finite", where="step 3", got="nan"))
        for seed in (1, 2)
    )
    error = all_of([first, second])
    assert (error.what, error.where) == ("the loss is not finite", "a/rate-0.5/test-seed-1, step 3")
    assert error.got == "nan; failed as well: a/rate-0.5/test-seed-2"


@pytest.mark.slow
def test_a_study_goes_on_where_a_rate_of_its_sweep_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    arms = {"a": {"stage": "distill", "rates": [TOO_HIGH, 1e-3]}}
    raw: dict[str, Any] = study_dict(tmp_path) | {"arms": arms, "claims": {}}
    raw["set"] |= DECAY
    file = stored(tmp_path / "studies" / "high", raw)
    found = run_study(str(file)).arms["a"]
    assert (found.rate, [u.seed for u in found.seeds]) == (1e-3, [1, 2])
    assert found.sweep["100"] == (0.0,) and list(found.diverged or ()) == ["100"]
    assert "not finite" in (found.diverged or {})["100"]


@pytest.mark.slow
def test_the_others_are_trained_before_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` comes first and fails at both seeds; `b` is there afterwards."""
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    raw: dict[str, Any] = study_dict(tmp_path)
    raw["set"] |= DECAY
    raw["arms"] = {"a": {"stage": "distill", "rates": [1e-3]}, "b": {"stage": "distill", "rates": [2e-3]}}
    file = stored(tmp_path / "studies" / "high", raw | {"claims": {}})
    running = Running(file, load_study(file))
    running.chosen = {"a": TOO_HIGH, "b": 2e-3}
    units = [u for name in ("a", "b") for u in running.tested(name, [1, 2])]
    with multiprocessing.get_context("fork").Pool(1) as processes, pytest.raises(TrainingError) as caught:
        running._run(units, "train", lambda: processes)
    assert caught.value.where.startswith("a/rate-100/test-seed-1")
    assert "a/rate-100/test-seed-2" in caught.value.got
    assert [running.job(u).done for u in units] == [False, False, True, True]
