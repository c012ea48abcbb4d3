"""The cut of the teacher's supervision, in the style of Prefix-Teach, by hand."""

from __future__ import annotations

import math
import random
from typing import Literal

import pytest

from vold.objective.prefix_teach import downward_change, segment_spans, top_k_margin


@pytest.mark.parametrize(
    ("form", "margin"),
    [
        ("log_gap", math.log(0.5 / 0.2)),
        ("probability_gap", 0.3),
        ("best_to_mean", math.log(0.5) - (math.log(0.1) + math.log(0.5) + math.log(0.2)) / 3),
    ],
)
def test_the_margin_over_three_candidates(
    form: Literal["log_gap", "probability_gap", "best_to_mean"], margin: float
) -> None:
    assert top_k_margin([math.log(p) for p in (0.1, 0.5, 0.2)], form) == pytest.approx(margin, rel=1e-12)


def test_a_margin_needs_two_candidates() -> None:
    with pytest.raises(ValueError, match="two"):
        top_k_margin([-1.0])


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ([], []),
        (["One", " two"], [2]),
        (["One", ".", " Two", "!", ' "', "Three", '?"', " Four"], [2, 4, 7, 8]),
        (["pi", " is", " 3", ".", "14", "."], [6]),  # a point before a digit ends nothing
        (["a", "\n\n", "b", ".\n", "c"], [2, 4, 5]),
        (["a. b. c"], [1]),  # two ends in one token end once
        (["x", ".", "\n", "y"], [3, 4]),
        (["你", "好", "。", "吗", "\uff1f"], [3, 5]),
    ],
)
def test_sentences_cover_the_tokens(pieces: list[str], ends: list[int]) -> None:
    spans = segment_spans(pieces)
    assert [s.stop for s in spans] == ends
    assert [t for s in spans for t in s] == list(range(len(pieces)))


def test_another_boundary_cuts_elsewhere() -> None:
    assert [s.stop for s in segment_spans(["a", " ;", " b", " ;", " c"], ";")] == [2, 4, 5]


def test_bic_of_a_step_with_noise_by_hand() -> None:
    """[3, 1, 3, 1 | -3, -1, -3, -1]: means 2 and -2, RSS_1 = 8 and RSS_0 = 8 + 8 · 2² = 40, so the gain is
    8 ln(40 / 8) - 2 ln 8. Any other place leaves more."""
    cut = downward_change([3, 1, 3, 1, -3, -1, -3, -1])
    assert cut.segment == 4
    assert cut.gain == pytest.approx(8 * math.log(5) - 2 * math.log(8), rel=1e-12)


def test_a_step_too_small_for_its_noise_is_not_taken() -> None:
    """[1.1, -0.9, -1.1, 0.9]: means 0.1 and -0.1, RSS_0 = 4.04, RSS_1 = 4, gain 4 ln 1.01 - 2 ln 4 < 0."""
    cut = downward_change([1.1, -0.9, -1.1, 0.9])
    assert cut.segment is None
    assert cut.gain == pytest.approx(4 * math.log(1.01) - 2 * math.log(4), rel=1e-9)


@pytest.mark.parametrize("place", [2, 3, 5, 8])
def test_a_clean_step_down_is_cut_where_it_is(place: int) -> None:
    assert downward_change([2.0] * place + [0.5] * (10 - place)).segment == place


@pytest.mark.parametrize(
    "series",
    [
        [],
        [1.0],
        [5.0, 1.0, 1.0],  # too short for two on each side
        [0.1] * 7,
        [1.52] * 11,  # whose means over 3 and 8 differ by rounding
        [0.1 + 0.2] * 4 + [0.3] * 4,  # a step of rounding
        [0.5] * 4 + [2.0] * 4,  # upward
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    ],
)
def test_flat_upward_and_short_series_stay_whole(series: list[float]) -> None:
    assert downward_change(series).segment is None


def test_noise_alone_is_seldom_cut() -> None:
    rng = random.Random(4)
    cut = sum(downward_change([rng.gauss(0, 1) for _ in range(20)]).segment is not None for _ in range(400))
    assert cut < 80


def test_the_least_number_of_segments_holds_on_both_sides() -> None:
    series = [5.0, 5.0, 1.0, 1.0, 1.0, 1.0]
    assert downward_change(series, 2).segment == 2
    assert downward_change(series, 3).segment == 3
    assert downward_change(series, 4).segment is None
