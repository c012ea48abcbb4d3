"""docs/metrics.md against real runs: every stored key stands on the page, and every key of a row of metrics is seen."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from typing import Any

import pytest

import metric_docs
import tiny
from vold.evals.evaluate import evaluate
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.training.sft import sft

WEIGHTS = """
def halves(rollouts):
    return [[0.5 for _ in r.completion.ids] for r in rollouts]


def likelihood(streams):
    return -streams.logp
"""

EVERYTHING: dict[str, Any] = {
    "method": None,
    "outcome": {"overlong": {"buffer": 0.2}},
    "teacher_advantage": {
        "balance": {},
        "margin": {"form": "shift"},
        "steps": {},
        "weight": "own_weights:halves",
        "prefix": {},
        "future": {},
        "gate": 0.02,
        "against": "reference",
    },
    "surrogate": {"importance_cap": 2.0},
    "reference": {"coefficient": 1e-3},
    "entropy": {"coefficient": 1e-3},
    "teacher_loss": {"mask": "none", "weight": "own_weights:halves"},
    "nll": {},
    "own_loss": {"function": "own_weights:likelihood"},
}
"""An objective with every part whose values are logged; a margin has two forms, which log different ones."""


QUANTIZES = importlib.util.find_spec("bitsandbytes") is not None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Rows of real runs by file of the page."""
    home = tmp_path_factory.mktemp("runs")
    (home / "own_weights.py").write_text(WEIGHTS)
    sys.path.insert(0, str(home))
    raw = tiny.recipe_dict(home)
    run, student = home / "run", raw["student"]["path"]
    raw["sft"] |= {"steps": 1, "eval": {"every": 1, "sets": ["text"], "size": 2}}
    tiny.write_traces(home, recipe_from(raw, where="test"))
    sft(recipe_from(raw, where="test"))
    rows: dict[str, list[dict[str, Any]]] = {"sft/metrics.jsonl": read_jsonl(run / "sft" / "metrics.jsonl")}
    rows["distill/metrics.jsonl"] = []
    for form in ("mask", "shift"):
        shutil.rmtree(run / "distill", ignore_errors=True)
        margin = {"teacher_advantage": {**EVERYTHING["teacher_advantage"], "margin": {"form": form}}}
        raw["teacher"]["base"] = {"path": raw["teacher"]["path"]}
        raw["teacher"]["quantize"] = "int8" if form == "shift" and QUANTIZES else None
        raw["distill"] |= {"steps": 1, "refill": 1, "init": student, "objective": EVERYTHING | margin}
        raw["distill"]["eval"] = raw["sft"]["eval"]
        distill(recipe_from(raw, where="test"))
        rows["distill/metrics.jsonl"] += read_jsonl(run / "distill" / "metrics.jsonl")
    rows |= {f"{stage}/evals.jsonl": read_jsonl(run / stage / "evals.jsonl") for stage in ("sft", "distill")}
    raw["eval"]["samples"] = 2
    evaluate(recipe_from(raw, where="test"))
    rows["eval/results.json"] = [json.loads((run / "eval" / "results.json").read_text())]
    rows["eval/MODEL/SET.jsonl"] = [r for f in (run / "eval").glob("*/*.jsonl") for r in read_jsonl(f)]
    sys.path.remove(str(home))
    return rows


@pytest.mark.parametrize("file", metric_docs.FILES)
def test_every_key_that_a_run_stores_stands_on_the_page(file: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    known = metric_docs.on_the_page()[file]
    assert runs[file]
    for place, names in metric_docs.keys_of(runs[file], known).items():
        assert names <= known[place], f"{file} {place}: not on the page"


@pytest.mark.parametrize("stage", ["sft", "distill"])
def test_every_metric_on_the_page_is_seen_in_a_run(stage: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    (known,) = metric_docs.on_the_page()[f"{stage}/metrics.jsonl"].values()
    absent = set() if QUANTIZES else {"quantize_error", "quantize_error_p99"}
    assert known - absent - set().union(*runs[f"{stage}/metrics.jsonl"]) == set()


def test_every_function_that_the_page_names_is_there() -> None:
    named = {k.made for classes in metric_docs.FILES.values() for c in classes for _, i in metric_docs.sections(c)
             for k in metric_docs.keys(i)}  # fmt: skip
    gone = sorted(made for made in named if made.split(":")[1] not in metric_docs.functions(made.split(":")[0]))
    assert not gone, "these moved: correct the docstrings of vold.run.metrics and vold.run.results"
