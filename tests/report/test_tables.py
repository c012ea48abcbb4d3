"""Results as tables of the terminal: the evaluation worked out by hand in `pages`."""

from __future__ import annotations

import re

import pytest

from pages import HOSTILE, made_results
from vold.report.tables import print_results
from vold.report.text import DASH, MINUS
from vold.run.console import console


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal wide enough for every table."""
    monkeypatch.setattr(console, "_width", 1000)


def test_accuracies_shares_and_differences_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    results = made_results()
    results["stages"]["vold"]["angles"] |= {"judge_failed": 3, "k": 8}
    print_results(results)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["set", "model", "n", "accuracy", "wrong", "truncated", "unparsed", "timed", "out"] in rows
    assert ["angles", "base", "4", "25.0", "±", "25.0", "25.0", "25.0", "25.0", "0.0"] in rows
    assert ["angles", "vold", "4", "x", "8", "75.0", "±", "25.0", "0.0", "0.0", "0.0", "25.0"] in rows
    assert f"angles vold base +50.0 [{MINUS}63.5, +100.0] 0.353 0.707".split() in rows
    assert "angles, vold: worst case 12.5 [1.0, 30.0] (n=8)" in lines
    assert "angles, vold: the judge's reply to 3 answers could not be used; they score 0" in lines
    bad = "1 rows cannot be used, 1 golds do not grade themselves (listed in results.json)"
    assert f"angles: left out: {bad}" in lines


def test_headline_scores_are_printed_before_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    results = made_results()
    results["headlines"] = [
        {"set": "mmmu_pro", "model": "base", "score": "overall", "value": 0.31, "low": 0.3, "high": 0.32},
        {"set": "mme", "model": "base", "score": "perception", "value": 15.64, "low": 15.1, "high": 16.2},
        {"set": "angles", "model": "base", "score": "accuracy", "value": 0.25, "low": 0.1, "high": 0.7},
    ]
    print_results(results)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["headline", "scores,", "%", "[95%", "interval]"]
    assert rows[2] == ["mmmu_pro", "base", "overall", "31.0", "[30.0,", "32.0]"]
    assert rows[3] == ["mme", "base", "perception", "1,564.0", "[1,510.0,", "1,620.0]"]
    assert rows[5][0] == "accuracy"


def test_a_narrow_terminal_gets_lists_and_every_figure_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = made_results()
    print_results(results)
    whole = {word for word in capsys.readouterr().out.split() if any(map(str.isdigit, word))}
    monkeypatch.setattr(console, "_force_terminal", True)
    for width in (100, 60, 30):
        monkeypatch.setattr(console, "_width", width)
        print_results(results)
        out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert "…" not in out
        assert whole <= set(out.split())


def test_a_pipe_gets_the_whole_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(made_results())
    wide = capsys.readouterr().out
    monkeypatch.setattr(console, "_width", 20)
    print_results(made_results())
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        line.rstrip() for line in wide.splitlines()
    ]


def test_half_results_and_hostile_ones_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_results({})
    assert capsys.readouterr().out == ""
    print_results({"stages": {"[bold]m": {HOSTILE: {"n": 3}}, "other": 4}})
    out = capsys.readouterr().out
    assert f"{DASH} ± {DASH}" in out
    assert "[bold]m" in out
    assert not set("\u202e\x1b\ud83d") & set(out)
