"""Published figures: only those of the same test stand beside ours."""

from __future__ import annotations

import pytest

from vold.data.benchmarks.registry import benchmarks
from vold.evals.published import matching, published


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
    average = values("dynamath", "sample_variant", "vlmevalkit")
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


def test_an_mmmu_pro_of_no_named_setting_is_shown_beside_none() -> None:
    shown = {p.value for n in benchmarks() if n.startswith("mmmu_pro") for p in matching(n, "test", "vlmevalkit")}
    assert shown == set()
    assert any(p.value == 32.0 and p.protocol == "unknown" for p in published())


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
