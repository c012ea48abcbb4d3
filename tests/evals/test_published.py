"""Published figures: only those of the same test stand beside ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from answers import row
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.registry import Loaded, benchmarks
from vold.evals.metrics import summarise
from vold.evals.published import beside, differs, left_out, matching, official_n, published
from vold.graders.outcome import JUDGE_FAILED, NOT_ANSWERED
from vold.run.results import BadRow, BenchmarkInfo


def values(benchmark: str, split: str, protocol: str, metric: str = "accuracy") -> dict[str, float]:
    return {f"{p.model} | {p.source.split(',')[0]}": p.value for p in matching(benchmark, split, protocol, metric)}


def test_the_papers_table_stands_beside_the_same_protocol() -> None:
    found = values("mathvision", "test", "vlmevalkit")
    assert found["VOLD | VOLD"] == 28.0
    assert found["Qwen2.5-VL-3B-Instruct | VOLD"] == 21.9
    assert found["Qwen2.5-VL-3B-Instruct | InternVL3"] == 21.9
    assert found["VOLD, SFT only | VOLD"] == 18.6
    assert found["VOLD, SFT and GRPO | VOLD"] == 24.0
    assert 25.1 not in found.values() and 21.2 not in found.values()  # the vendor's own protocol


@pytest.mark.parametrize("benchmark", benchmarks())
def test_nothing_published_stands_beside_the_rule_protocol(benchmark: str) -> None:
    for split in benchmarks()[benchmark].size:
        assert matching(benchmark, split, "rule") == []


def test_mathverse_of_all_versions_is_not_the_vision_only_one() -> None:
    """Same model, same name: 47.6 over five versions by the vendor, 31.2 vision-only by OpenCompass."""
    vision_only = values("mathverse_vision_only", "testmini", "vlmevalkit")
    assert vision_only["Qwen2.5-VL-3B-Instruct | InternVL3"] == 31.2
    assert not {47.6, 49.2} & set(vision_only.values())
    assert values("mathverse", "testmini", "vlmevalkit") == {}


def test_dynamath_average_and_worst_case_are_apart() -> None:
    average = values("dynamath", "sample_variant", "vlmevalkit", "average")
    worst = values("dynamath", "sample_variant", "vlmevalkit", "worst_case")
    assert average["Qwen2.5-VL-3B-Instruct | VOLD"] == 42.7 and average["VOLD | VOLD"] == 50.7
    assert worst == {"Qwen2.5-VL-7B-Instruct | InternVL3": 21.0, "Qwen2.5-VL-3B-Instruct | InternVL3": 13.2}
    assert not set(average.values()) & set(worst.values())


def test_wemath_strict_scores_are_not_accuracies() -> None:
    assert matching("wemath", "testmini", "vlmevalkit") == []
    assert values("wemath", "testmini", "vlmevalkit", "score_strict")["VOLD | VOLD"] == 31.8


def test_table_6_stands_beside_sums_and_means_of_the_same_name() -> None:
    assert values("mme", "test", "vlmevalkit", "perception")["VOLD | VOLD"] == 1530.0
    assert values("mme", "test", "vlmevalkit", "cognition")["Qwen2.5-VL-3B-Instruct | VOLD"] == 594.0
    assert values("hallusionbench", "image", "vlmevalkit", "overall")["VOLD | VOLD"] == 49.8
    assert values("mme", "test", "vlmevalkit") == values("hallusionbench", "image", "vlmevalkit") == {}


def test_a_testmini_is_not_a_test() -> None:
    assert matching("mathvision", "testmini", "vlmevalkit") == []


def test_mmmu_pro_in_one_setting_is_not_the_mean_of_two() -> None:
    """The paper's column is shown beside the vision setting, and says that the heading is not sure; the vendor's mean
    of two settings is shown beside neither."""
    shown = {n: values(n, "test", "vlmevalkit") for n in benchmarks() if n.startswith("mmmu_pro")}
    assert shown.pop("mmmu_pro_vision")["VOLD | VOLD"] == 32.0
    assert shown == {"mmmu_pro_standard10": {}, "mmmu_pro_standard4": {}}
    assert all("names no setting in another" in p.note for p in matching("mmmu_pro_vision", "test", "vlmevalkit"))
    assert {(p.metric, p.value) for p in published() if p.benchmark == "mmmu_pro"} == {
        ("overall", 38.3),
        ("overall", 31.56),
    }


def test_figures_of_models_trained_on_the_benchmark_say_so() -> None:
    notes = {p.model: p.note for p in matching("mathvista", "testmini", "vlmevalkit")}
    assert "trained partly" in notes["VLM-R1-3B-Math"] and "trained partly" in notes["VLAA-Thinker-3B"]
    assert "trained partly" not in notes["VOLD"]


def test_every_figure_is_a_percentage_with_a_source_of_a_known_split() -> None:
    assert len(published()) > 70
    for p in published():
        most = benchmarks()[p.benchmark].scale.get(p.metric, 1) if p.benchmark in benchmarks() else 1
        assert 0 < p.value < 100 * most and "arXiv" in p.source and p.note, p
        if p.benchmark in benchmarks():
            assert p.split in benchmarks()[p.benchmark].size, p


def test_a_figure_says_how_long_its_answers_could_be_or_that_it_is_unknown() -> None:
    """OpenCompass runs VLMEvalKit, which gives Qwen2.5-VL 2,048 tokens; the VOLD paper does not say."""
    limits = {
        p.source.split(",")[0]: (p.max_new_tokens, p.note) for p in matching("mathvista", "testmini", "vlmevalkit")
    }
    assert limits["InternVL3"][0] == 2048 and "up to 2,048 new tokens" in limits["InternVL3"][1]
    assert limits["VOLD"][0] is None and "token limit unknown" in limits["VOLD"][1]


SAME = {
    "name": "vlmevalkit", "benchmark": "mathvision", "split": "test", "samples": 1, "max_new_tokens": 2048,
    "temperature": 0.0, "tool": "none",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "n", "said"),
    [
        ({}, 3040, []),
        ({"temperature": 0.01}, 3040, []),
        ({}, 3039, ["3,039 of 3,040 items"]),
        ({}, 3041, ["3,041 items; the published split has 3,040"]),
        ({"split": "testmini"}, 304, ["split testmini; published figures are of test"]),
        ({"samples": 4}, 3040, ["4 answers to each item; published figures are of one"]),
        ({"max_new_tokens": 8192}, 3040, ["up to 8,192 new tokens; published figures have up to 2,048"]),
        ({"max_new_tokens": 1024}, 3040, ["up to 1,024 new tokens; published figures have up to 2,048"]),
        ({"temperature": 0.6}, 3040, ["temperature 0.6; published figures are greedy"]),
        ({"tool": "python, 4 turns"}, 3040, ["the model may call a tool"]),
        ({"name": "rule", "max_new_tokens": 8192, "temperature": 0.6}, 3040, []),  # nothing published is marked so
        ({"name": "tasks", "samples": 4}, 7, []),
        ({"benchmark": "mine"}, 7, []),
    ],
)
def test_what_makes_a_figure_one_of_another_test(change: dict[str, object], n: int, said: list[str]) -> None:
    assert list(differs(SAME | change, n)) == said


def test_the_row_that_nobody_can_ask_makes_no_difference() -> None:
    """LogicVista has 448 rows, of which VLMEvalKit's table leaves out the one without question and answer."""
    protocol = SAME | {"benchmark": "logicvista"}
    assert official_n(protocol) == 448
    assert differs(protocol, 447) == () and differs(protocol, 446) == ("446 of 448 items",)


def loaded(items: int, bad: int = 0, doubled: int = 0) -> Loaded:
    whys = ["another row has this id already: 3"] * doubled + ["no picture"] * bad
    made = [Item("mathvista", str(n), "?", (), (), "1", "integer", cluster=str(n)) for n in range(items)]
    rows = [BadRow("testmini.parquet", why) for why in whys]
    return Loaded(made, rows, doubled, items + bad + doubled, "", "", None, "testmini")


GOLDS = "with a gold that cannot be marked"


@pytest.mark.parametrize(
    ("read", "limit", "bad_golds", "reasons"),
    [
        (loaded(1000), None, 0, {}),
        (loaded(1000), 5000, 0, {}),
        (loaded(50), 50, 0, {"beyond the limit": 950}),
        (loaded(50), 60, 0, {"not in the data": 950}),  # the data ended before the limit
        (loaded(600), None, 0, {"not in the data": 400}),
        (loaded(990, bad=10), None, 0, {"unusable": 10}),
        (loaded(48, bad=2), 50, 3, {"beyond the limit": 950, "unusable": 2, GOLDS: 3}),
        (loaded(1000, doubled=7), None, 0, {}),  # a second copy of a row is no item
        (loaded(1200), None, 0, {}),
        (loaded(1000, bad=9), None, 0, {}),  # more rows than the published split has
    ],
)  # fmt: skip
def test_why_items_are_missing_adds_up(
    read: Loaded, limit: int | None, bad_golds: int, reasons: dict[str, int]
) -> None:
    found = left_out(1000, read, limit, bad_golds)
    assert found == reasons
    assert sum(found.values()) == max(0, 1000 - (len(read.items) - bad_golds))


ABOUT = BenchmarkInfo(
    benchmark="mathvision", title="", split="test", source="", limit=None, official_n=3040, n_items=3040, bad_rows=(),
    bad_golds=(), protocol=SAME,
)  # fmt: skip


def test_published_figures_stand_beside_figures_of_the_same_test_only() -> None:
    whole = summarise([row("a", 1), row("b", 0)], benchmark="mathvision")
    part = replace(whole, differs=("3,039 of 3,040 items",))
    assert {p.value for p in beside(ABOUT, [whole, whole])} >= {28.0, 25.4}
    assert beside(ABOUT, [part]) == beside(ABOUT, [whole, part]) == ()


@pytest.mark.parametrize(
    ("note", "words"),
    [(JUDGE_FAILED, "the judge's reply could not be used"), (NOT_ANSWERED, "the server gave no answer")],
)
def test_answers_that_nobody_gave_or_marked_make_a_figure_differ(note: str, words: str) -> None:
    lost = replace(row("b", 0), note=f"{note}: why")
    found = summarise([row("a", 1), lost], benchmark="mathvision", differs=("greedy",))
    assert found.differs == ("greedy", f"1 of 2 answers scores 0 because {words}")
    assert beside(ABOUT, [found]) == ()


def test_the_headline_score_has_its_published_figures_first() -> None:
    about = replace(ABOUT, benchmark="dynamath", split="sample_variant", protocol=SAME | {"benchmark": "dynamath"})
    figures = summarise([row("a", 1), row("b", 0)], benchmark="dynamath")
    assert [p.metric for p in beside(about, [figures])] == ["average"] * 5 + ["worst_case"] * 2
    assert all(p.note.startswith(f"{p.metric.replace('_', ' ')}; ") for p in beside(about, [figures]))
