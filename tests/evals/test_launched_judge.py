"""A judge whose servers the run starts, with `fake_vllm` in vLLM's place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import layouts
from launched import fault, gpus_are, launch, of_run, shared_memory
from vold.engines.launch.wanted import JUDGE, servers_of
from vold.errors import SamplerError
from vold.evals.evaluate import evaluate
from vold.evals.preflight import check
from vold.run.console import console
from vold.run.files import read_jsonl
from vold.run.recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(console, "print", lambda *words, **how: lines.append(" ".join(map(str, words))))
    return lines


def recipe(home: Path, judge: dict[str, Any], tested: dict[str, Any] | None = None) -> Recipe:
    """Six items of MathVista that a judge marks, answered by the demo's student twice."""
    spec = {"path": str(layouts._mathvista_zip(home / "m.zip")), "protocol": "vlmevalkit", "limit": 6}
    evaluation = {
        "sampling": {"max_new_tokens": 4},
        "models": {"one": "demo:student", "two": "demo:student"},
        "benchmarks": {"mathvista": spec},
        "endpoint": {"launch": tested or launch()},
        "judge": {"launch": judge, "model": "demo:teacher"},
    }
    raw = {"run": {"dir": str(home / "run")}, "student": {"path": "demo:student"}, "eval": evaluation}
    return recipe_from(raw, where="test")


def starts(said: list[str]) -> list[str]:
    return [line.split(":")[0] for line in said if ": starting " in line]


def test_the_judge_comes_when_all_is_answered_and_not_again(tmp_path: Path, said: list[str]) -> None:
    made = recipe(tmp_path, launch())
    results = evaluate(made)
    assert starts(said) == 2 * ["server eval-endpoint-cpu0"] + ["server eval-judge-cpu0"]
    assert of_run(tmp_path) == [] and shared_memory(tmp_path) == set()
    asked = (tmp_path / "run/judge/servers/eval-judge-cpu0.log").read_text().count("/v1/chat/completions")
    replies = [row for file in (tmp_path / "run/eval/judge").glob("*.jsonl") for row in read_jsonl(file)]
    assert 0 < asked == len(replies), "what both models answer alike is asked once"
    for model in ("one", "two"):
        rows = read_jsonl(tmp_path / f"run/eval/{model}/mathvista.jsonl")
        assert len(rows) == 6 and all("score" in row for row in rows)
        assert results.stages[model]["mathvista"].judge_agreement is not None
    before = json.loads((tmp_path / "run/eval/results.json").read_text())
    said.clear()
    evaluate(made)
    assert starts(said) == []
    assert json.loads((tmp_path / "run/eval/results.json").read_text()) == before


def test_a_judge_that_ends_costs_no_answer(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(SamplerError, match="judge"):
        evaluate(recipe(tmp_path, fault("exit")))
    rows = read_jsonl(tmp_path / "run/eval/one/mathvista.jsonl")
    assert len(rows) == 6 and not any("score" in row for row in rows)
    said.clear()
    evaluate(recipe(tmp_path, launch()))
    assert starts(said) == ["server eval-judge-cpu0"], "nothing is left to answer"
    assert all("score" in row for row in read_jsonl(tmp_path / "run/eval/one/mathvista.jsonl"))


def test_it_may_have_the_gpu_of_the_model_under_test_and_check_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus_are(monkeypatch, tmp_path, 0)
    made = recipe(tmp_path, {**launch(), "devices": [0]}, {**launch(), "devices": [0]})
    (judge,) = servers_of(made, JUDGE)
    assert (judge.devices, judge.model, judge.served) == ((0,), "demo:teacher", "demo:teacher")
    assert "servers of the judge: eval-judge-gpu0: demo:teacher on GPU 0" in check(made)
