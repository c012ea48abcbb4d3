"""Charts by hand."""

from __future__ import annotations

import re

import pytest

from vold.report.charts import Bar, Series, interval_strip, line_chart, outcome_chart, score_chart, thin
from vold.report.text import DASH


def test_bars_and_whiskers_have_the_length_of_the_numbers() -> None:
    failed = {"right": 0.25, "wrong": 0.5, "truncated": 0.125, "unparsed": 0.0625, "timed_out": 0.0625}
    svg = str(score_chart("t", [Bar("m", 0.25, 0.2, 0.3, failed), Bar("none")], 0.5))
    assert svg.count("25.0% not marked") == svg.count("not marked") == 1
    assert 'class="bar c0" x="0" y="19" width="160.0"' in svg  # half of 320
    assert 'd="M128.0 23.5H192.0' in svg
    assert svg.count('class="bar') == 1
    assert f">{DASH}</text>" in svg


def test_long_names_of_one_family_keep_their_ends() -> None:
    names = [f"A-3B-trained-for-a-long-time-step-{n}" for n in (100, 600)]
    shown = re.findall(r'class="name"[^>]*>([^<]*)<title>([^<]*)<', str(score_chart("t", [Bar(n) for n in names], 1.0)))
    assert [title for _, title in shown] == names
    assert shown[0][0] != shown[1][0]


def test_stacked_bars_have_the_length_of_the_shares() -> None:
    row = Bar("m", outcomes={"right": 0.25, "wrong": 0.5, "truncated": 0.25}, links={"wrong": "#samples?outcome=wrong"})
    svg = str(outcome_chart("t", [row, Bar("empty")]))
    found = re.findall(r'class="o-(\w+)" x="([\d.]+)" y="18" width="([\d.]+)"', svg)
    assert found == [("right", "0.0", "79.0"), ("wrong", "80.0", "159.0"), ("truncated", "240.0", "79.0")]
    assert '<a href="#samples?outcome=wrong" aria-label="m: wrong 50.0%">' in svg
    assert svg.count("<a ") == 1


def test_interval_about_zero() -> None:
    svg = str(interval_strip(0.1, -0.1, 0.3, 0.2, reach=0.4))  # 150 wide: zero at 75, 0.4 at 150
    assert 'cx="93.8"' in svg
    assert 'd="M56.2 9H131.2' in svg
    assert 'class="band" x="37.5" y="1" width="75.0"' in svg
    assert interval_strip(None, reach=1.0) == ""


def test_thinning_keeps_extremes_and_ends() -> None:
    line = [(float(i), 100.0 if i == 5001 else float(i % 7)) for i in range(10_001)]
    thinned = thin(line, 400)
    assert len(thinned) <= 401
    assert (5001.0, 100.0) in thinned
    assert thinned[-1] == line[-1]
    assert thinned == sorted(thinned)


def vertical_axis(svg: object) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]*)<', str(svg))[: str(svg).count('class="grid"')]


@pytest.mark.parametrize(
    "values",
    [
        (11.9183, 11.9185, 11.9189),
        (11.92, 11.92, 11.92),
        (1e-7, 2e-7),
        (0.0, 0.0),
        (1e5, 1e5 + 3),
        (5.0, 5.0 + 1e-12),
        (-3.0, 4.0),
    ],
)
def test_marks_of_an_axis_can_be_told_apart(values: tuple[float, ...]) -> None:
    marks = vertical_axis(line_chart("t", "u", [Series("", list(enumerate(values)))]))
    assert len(marks) >= 2
    assert len(set(marks)) == len(marks)
    assert max(map(len, marks)) <= 9


@pytest.mark.parametrize("values", [(1.0, 1.0), (0.9, 1.0), (0.0, 0.0), (0.97, 0.99), (0.0, 1.0)])
def test_shares_lie_between_0_and_100_percent(values: tuple[float, ...]) -> None:
    marks = vertical_axis(line_chart("t", "u", [Series("", list(enumerate(values)))], shares=True))
    assert len(marks) >= 2
    assert all(0 <= float(mark.rstrip("%")) <= 100 for mark in marks)


def test_an_axis_of_what_is_never_negative_does_not_go_below_0() -> None:
    marks = vertical_axis(line_chart("t", "u", [Series("", [(0.0, 0.001), (1.0, 0.0012)])]))
    assert not [mark for mark in marks if mark.startswith("\N{MINUS SIGN}")]


def test_charts_of_odd_data() -> None:
    assert line_chart("t", "u", [Series("empty", [])]) is None
    for pts in ([(0.0, 0.0)], [(3.0, -2.0)], [(0.0, 1.0), (1.0, 1.0)], [(0.0, -1e9), (1.0, 1e9)]):
        drawn = line_chart("t", "u", [Series("<b>", pts)])
        assert drawn is not None
        assert "nan" not in drawn
        assert "<b>t</b>" in drawn
        assert 'label": "<b>' not in drawn
