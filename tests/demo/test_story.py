"""What `vold demo` says of its figures at its end."""

from __future__ import annotations

from vold.demo.story import story
from vold.report.readings import Readings
from vold.report.text import MINUS
from vold.run.comparison import Comparison
from vold.run.results import Figures, Results, RunInfo

MODELS = ("base", "sft", "grpo", "vold")
READ = {"image": {"sft": Readings(misread=600, misreasoned=120, unsaid=67, lucky=13), "vold": Readings(250, 90, 5, 20)}}


def figures(accuracy: float) -> Figures:
    return Figures(
        accuracy=accuracy, stderr=0.01, low=accuracy - 0.02, high=accuracy + 0.02, n=1000, k=1, clusters=1000,
        outcomes={}, by={}, judge_failed=0, mean_tokens=1.0, derived={}, by_kind={},
    )  # fmt: skip


def compared(name: str, model: str, against: str, difference: float) -> Comparison:
    return Comparison(
        set=name, model=model, against=against, difference=difference, stderr=0.02, low=difference - 0.04,
        high=difference + 0.04, p_value=0.5, mcnemar_p=None, min_detectable=0.05, derived={},
    )  # fmt: skip


def results(**accuracies: tuple[float | None, ...]) -> Results:
    """Of accuracies by set, of each model that has one."""
    by_model = {
        m: {name: figures(v) for name, values in accuracies.items() if (v := values[i]) is not None}
        for i, m in enumerate(MODELS)
    }
    found = {m: sets for m, sets in by_model.items() if sets}
    names = list(found)
    comparisons = tuple(
        compared(s, later, earlier, found[later][s].accuracy - found[earlier][s].accuracy)
        for i, later in enumerate(names)
        for earlier in names[:i]
        for s in found[later]
        if s in found[earlier]
    )
    return Results(run=RunInfo("demo", {}, {}), sets={}, stages=found, comparisons=comparisons, mmmu_pro_overall=None)


def test_what_the_cold_start_costs_what_came_back_and_grpo_beside_it() -> None:
    start, stage_2, beside = story(
        results(image=(0.401, 0.213, 0.369, 0.472), text=(0.415, 0.444, 0.739, 0.860)), READ, None
    )
    assert "images 40.1% to 21.3%, text 41.5% to 44.4%" in start and "found ready for stage 2" in start
    assert "613 of its 1,000 answers copy other digits" in start
    assert "images 21.3% to 47.2%, text 44.4% to 86.0%." in stage_2
    assert (
        "Answers that copy other digits: 613, then 270; that copy them right and reason wrong: 120, then 90." in stage_2
    )
    assert "gains 25.9 points over the cold start (95% interval +21.9 to +29.9)" in stage_2
    assert "gains 7.1 points over the base (95% interval +3.1 to +11.1)" in stage_2
    assert "images 21.3% to 36.9%, text 44.4% to 73.9%" in beside
    assert "VOLD gains 10.3 points over GRPO (95% interval +6.3 to +14.3) on images" in beside


def test_a_loss_is_told_as_one_and_what_cannot_be_told_as_that() -> None:
    start, stage_2, beside = story(
        results(image=(0.401, 0.401, 0.369, 0.058), text=(0.1, 0.1, 0.86, 0.85)), READ, "not aligned"
    )
    assert "not ready for stage 2, so this run is no good example" in start
    assert "fall" not in start, "the cold start has cost nothing here"
    assert f"loses 34.3 points against the base (95% interval {MINUS}38.3 to {MINUS}30.3)" in stage_2
    assert f"cannot be told from GRPO ({MINUS}1.0 points, 95% interval {MINUS}5.0 to +3.0) on text" in beside


def test_sets_and_models_that_are_not_there_are_left_out() -> None:
    (only,) = story(results(image=(0.4, 0.2, None, None)), {}, None)
    assert "images 40.0% to 20.0%. It" in only and "text" not in only.partition(": ")[2]
    start, stage_2, beside = story(results(text=(0.4, 0.2, 0.5, 0.6)), {}, None)
    assert start.endswith("text 40.0% to 20.0%. It was found ready for stage 2.")
    assert stage_2.endswith("failed rollouts: text 20.0% to 60.0%.")
    assert "VOLD gains 10.0 points over GRPO (95% interval +6.0 to +14.0) on text." in beside
    assert story(results(hard=(0.4, None, None, 0.6)), {}, None) == []
    assert story(results(), {}, None) == []
    (alone,) = story(results(hard=(None, 0.2, None, 0.6)), {}, None)
    assert "hard 20.0% to 60.0%" in alone
