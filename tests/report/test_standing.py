"""How a run stands: how long the stage at work still takes, and which stages have ended before their last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pages import Page
from vold.report import write_report
from vold.report.listing import listed_runs
from vold.report.standing import Standing, asked_of, metrics_of, standing
from vold.run.directory import end_early
from vold.run.files import append_jsonl, write_json, write_text
from vold.run.lock import owning

if TYPE_CHECKING:
    from pathlib import Path


def trained(run: Path, stage: str, steps: int, seconds: float) -> Path:
    """A stage with steps behind it, half of whose time went into the update, and its state after them."""
    rows = [{"step": s, "reward": 0.5, "loss": 1.5, "seconds_sample": seconds / 2, "seconds_update": seconds / 2}
            for s in range(steps)]  # fmt: skip
    append_jsonl(run / stage / "metrics.jsonl", rows)
    (run / stage / f"step-{steps:06d}").mkdir()
    return run / stage


def at_work(run: Path, verb: str) -> Standing:
    with owning(run, verb):
        return standing(run, metrics_of(run), asked_of(run))


def states(now: Standing) -> dict[str, str]:
    return {s.name: s.state for s in now.stages}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose distillation has four of 600 steps, of ten seconds each, behind it."""
    write_text(tmp_path / "run" / "recipe.yaml", "distill: {steps: 600}\neval: {}\n")
    trained(tmp_path / "run", "distill", 4, 10)
    return tmp_path / "run"


def test_the_time_that_is_left_is_that_of_the_stage_at_work(run: Path, tmp_path: Path) -> None:
    assert at_work(run, "distill").left == "about 99 minutes of distill left"  # 596 steps of 10 s: 99.3
    assert standing(run, metrics_of(run), asked_of(run)).left == ""  # nobody is at work
    longer = tmp_path / "longer"
    write_text(longer / "recipe.yaml", "sft: {steps: 6}\ndistill: {steps: 1000}\n")
    trained(longer, "sft", 2, 30)
    with owning(longer, "sft"):
        assert 'running</b> <span class="soft">about 2 minutes of sft left<' in write_report(longer).read_text()


def test_nothing_is_left_of_a_stage_that_has_ended_early_while_the_next_one_works(run: Path) -> None:
    end_early(run / "distill", 4)
    assert states(at_work(run, "distill"))["distill"] == "begun"  # its model is not there yet
    (run / "distill" / "final").mkdir()
    now = at_work(run, "eval")
    assert (now.state, now.left, states(now)["distill"]) == ("running", "", "ended early")


def test_a_stage_that_has_ended_early_says_so_with_its_steps_on_the_page_and_in_the_list(run: Path) -> None:
    end_early(run / "distill", 4)
    (run / "distill" / "final").mkdir()
    rows = Page(write_report(run).read_text()).rows
    assert ["distill", "ended early", "4 of 600 steps, last reward 0.500"] in rows
    said = "distill: ended early, 4 of 600 steps, last reward 0.500"
    assert [(r.state, r.step) for r in listed_runs({"run": run})] == [("stopped", said)]
    write_json(run / "eval" / "results.json", {"stages": {"base": {}, "vold": {}}})
    assert [(r.state, r.step) for r in listed_runs({"run": run})] == [("finished", f"{said}; eval: base, vold")]
    write_text(run / "recipe.yaml", "distill: {steps: 600}\n")
    assert [r.state for r in listed_runs({"run": run})] == ["finished"]


def test_a_stage_that_goes_on_with_more_steps_is_not_done_though_its_model_is_there(run: Path) -> None:
    (run / "distill" / "final").mkdir()
    write_text(run / "recipe.yaml", "distill: {steps: 4}\n")
    assert states(at_work(run, "distill"))["distill"] == "done"
    write_text(run / "recipe.yaml", "distill: {steps: 16}\n")
    now = at_work(run, "distill")
    assert (states(now)["distill"], now.left) == ("begun", "about 2 minutes of distill left")  # 12 steps of 10 s


def test_a_run_whose_training_goes_on_is_not_finished_though_it_was_evaluated_before(run: Path) -> None:
    (run / "distill" / "final").mkdir()
    write_json(run / "eval" / "results.json", {"stages": {"base": {}, "vold": {}}})
    for steps, state in ((4, "finished"), (16, "stopped")):
        write_text(run / "recipe.yaml", f"distill: {{steps: {steps}}}\neval: {{}}\n")
        now = standing(run, metrics_of(run), asked_of(run))
        assert (now.state, states(now)["eval"]) == (state, "done")
