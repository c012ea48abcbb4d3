"""What `vold demo` says of its figures at its end."""

from __future__ import annotations

import pytest

from vold.demo.pipeline import story
from vold.run.comparison import Comparison
from vold.run.results import Figures, Results, RunInfo


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


def results(image: tuple[float, float, float], text: tuple[float, float, float]) -> Results:
    models = ("base", "sft", "vold")
    found = {m: {"image": figures(image[i]), "text": figures(text[i])} for i, m in enumerate(models)}
    pairs = [(1, 0), (2, 0), (2, 1)]
    comparisons = [
        compared(name, models[a], models[b], values[a] - values[b])
        for name, values in (("image", image), ("text", text))
        for a, b in pairs
    ]
    return Results(
        run=RunInfo("demo", {}, {}), sets={}, stages=found, comparisons=tuple(comparisons), mmmu_pro_overall=None
    )


def test_a_gain_is_told_with_its_points() -> None:
    text, image, start = story(results((0.401, 0.396, 0.472), (0.415, 0.823, 0.860)), None)
    assert "41.5% base, 82.3% after the cold start, 86.0% after stage 2" in text
    assert "cannot be told from the cold start (+3.7 points)" in text
    assert "40.1% base, 39.6% after the cold start, 47.2% after stage 2" in image
    assert "gains 7.1 points over the base" in image
    assert "ready for stage 2" in start


def test_a_loss_is_told_as_one() -> None:
    _, image, start = story(results((0.401, 0.058, 0.072), (0.415, 0.1, 0.1)), "not aligned")
    assert "costs 32.9 points against the base" in image
    assert "costs 34.3 points against the base" in start
    assert "no good example" in start


@pytest.mark.parametrize("doubt", [None, "why"])
def test_it_is_three_sentences(doubt: str | None) -> None:
    told = story(results((0.4, 0.2, 0.5), (0.4, 0.5, 0.9)), doubt)
    assert len(told) == 3
    assert all(sentence.endswith(".") for sentence in told)
