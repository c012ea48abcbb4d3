"""The curves of training from metric rows."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

from vold.report.run_page import DISTILL, SFT, asked_charts, points, score_curves, training_charts, window
from vold.run.looks import EvalRow


def drawn(chart: str) -> Any:
    return json.loads(unescape(chart.partition('data-lines="')[2].partition('"')[0]))


def test_a_metric_is_drawn_each_step_and_smoothed() -> None:
    rows = [{"step": s, "loss": float(s)} for s in range(20)]
    (loss,) = training_charts(SFT, rows)
    each, mean = drawn(loss)
    assert (each["label"], mean["label"]) == ("each step", "mean of the last 5")
    assert each["points"][7] == [7, 7]
    assert mean["points"][1] == [1, 0.5] and mean["points"][7] == [7, 5]  # of 3, 4, 5, 6, 7
    (short,) = training_charts(SFT, rows[:3])
    assert [line["points"] for line in drawn(short)] == [[[0, 0], [1, 1], [2, 2]]]
    assert (window(19), window(20), window(400)) == (1, 5, 20)


def test_steps_without_a_value_and_lines_of_nothing_are_left_out() -> None:
    rows = [{"step": 0, "teacher_gap": 1.0, "teacher_tokens": 4}, {"step": 1, "teacher_gap": 2.0, "teacher_tokens": 0}]
    assert points(rows, "teacher_gap", "teacher_tokens") == [(0.0, 1.0)]
    assert points([{"step": 1, "x": "y"}, {"x": 1.0}, {"step": 2, "x": float("nan")}], "x") == []
    (failed,) = training_charts(DISTILL, [{"step": 0, "share_wrong": 0.5, "share_unparsed": 0.0}])
    assert [line["label"] for line in drawn(failed)] == ["wrong"]
    assert training_charts(DISTILL, []) == []


def test_nine_sets_and_nine_scores_are_lines_that_can_be_told_apart() -> None:
    """Four colours, then dashed in the same four, then dotted, with keys like the lines."""
    looks = [f"c{c}{stroke}" for stroke in ("", " dashed", " dotted") for c in (1, 2, 3, 4)][:9]
    asked = [
        EvalRow(step=s, set=f"set {i}", pictures=True, n=8, accuracy=0.5, stderr=0.1, truncated=0.0, tokens=9)
        for s in (0, 5)
        for i in range(9)
    ]
    rows = [{"step": s, **{f"score_{name}": 0.5 for name in "abcdefghi"}} for s in range(3)]
    for (chart,) in (asked_charts(asked), training_charts(score_curves(rows), rows)):
        assert re.findall(r'<polyline class="([^"]*)"', chart) == looks
        assert re.findall(r'<span class="key line ([^"]*)"', chart) == looks
