"""Results as tables of the terminal: the evaluation worked out by hand in `pages`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import HOSTILE, made_results
from vold.report.tables import print_results
from vold.report.text import DASH, MINUS
from vold.run.console import console


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal wide enough for every table."""
    monkeypatch.setattr(console, "_width", 1000)


def test_scores_shares_and_differences_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    results = made_results()
    results["stages"]["vold"]["angles"] |= {"k": 8}
    print_results(results)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    for line in (
        "set score model n % ± error 95% interval wrong truncated unparsed timed out",
        "angles accuracy base 4 25.0 ± 25.0 4.6 to 69.9 25.0 25.0 25.0 0.0",
        "angles accuracy vold 4 x 8 75.0 ± 25.0 30.1 to 95.4 0.0 0.0 0.0 25.0",
        f"angles accuracy vold base +50.0 [{MINUS}63.5, +100.0] 0.353 0.707",
    ):
        assert line.split() in rows
    bad = "1 rows cannot be used, 1 golds do not grade themselves (listed in results.json)"
    assert f"angles: left out: {bad}" in lines


def test_it_ends_with_a_sentence_a_set_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    results = made_results()
    results["headlines"] = [
        {"set": "mmmu_pro", "model": "base", "score": "overall", "value": 0.31, "low": 0.3, "high": 0.32},
        {"set": "angles", "model": "base", "score": "perception", "value": 15.64, "low": 15.1, "high": 16.2},
    ]
    results["sets"]["angles"] |= {"official_n": 3040, "published": []}
    base = results["stages"]["base"]["angles"]
    base["differs"] = results["stages"]["vold"]["angles"]["differs"] = ["4 of 3,040 items"]
    base["derived"] = {"perception": {"value": 15.64, "most": 20.0}}
    base["as_vlmevalkit"] = {"accuracy": 0.2, "derived": {"perception": 15.0}}
    print_results(results, Path("runs/a/eval"))
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("MMMU-Pro, 10 options and vision: overall base 31.0% [30.0, 32.0].")
    assert lines[start + 1] == (
        "Angles: perception of 2,000 base 1,564.0 [1,510.0, 1,620.0]; as VLMEvalKit itself marks them base 1,500.0; "
        "protocol rule; base: 25.0% truncated, 25.0% unparsed; vold: 25.0% timed out; truncated answers "
        "reached eval.sampling.max_new_tokens; 4 of 3,040 items."
    )
    assert lines[start + 2] == "Words: accuracy base 50.0% [0.0, 100.0], vold 50.0% [0.0, 100.0]; 2 questions."
    assert "runs/a/eval/results.html" in lines[start + 4]
    assert lines[-1].endswith("vold compare runs/a/eval/base runs/a/eval/vold")


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
