"""A run killed with SIGKILL at any disk operation, started again, ends in the same weights bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.evals.evaluate import evaluate
from vold.run import files
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

OPERATIONS = ("fsync", "replace")


def rows_without_clock(file: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in files.read_jsonl(file)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both training stages that was never killed."""
    home = tmp_path_factory.mktemp("unbroken")
    recipe = tiny.recipe(home)
    tiny.write_traces(home, recipe)
    sft(recipe)
    distill(recipe)
    return home


# With six steps and a checkpoint every two, `sft` makes about 60 flushes and renames and `distill` about 75: the start,
# the steps, the middle of each checkpoint and the final model are all among these points.
POINTS = (1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56)


@pytest.mark.parametrize("operation", POINTS)
def test_killed_sft_ends_in_the_same_weights(operation: int, unbroken: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, recipe)
    assert not in_a_process_killed_at(operation, lambda: sft(recipe)), "the kill came after the end"
    assert in_a_process_killed_at(10**9, lambda: sft(recipe))
    assert weights_of(tmp_path / "run" / "sft") == weights_of(unbroken / "run" / "sft")
    log = "run/sft/metrics.jsonl"
    assert rows_without_clock(tmp_path / log) == rows_without_clock(unbroken / log)


@pytest.mark.parametrize("operation", (*POINTS, 61, 71))
def test_killed_distillation_ends_in_the_same_weights(operation: int, unbroken: Path, tmp_path: Path) -> None:
    start = str(unbroken / "run" / "sft" / "final")
    recipe = tiny.recipe(tmp_path, distill={"init": start})
    assert not in_a_process_killed_at(operation, lambda: distill(recipe)), "the kill came after the end"
    assert in_a_process_killed_at(10**9, lambda: distill(recipe))
    assert weights_of(tmp_path / "run" / "distill") == weights_of(unbroken / "run" / "distill")
    log = "run/distill/metrics.jsonl"
    assert rows_without_clock(tmp_path / log) == rows_without_clock(unbroken / log)
    for file in sorted((unbroken / "run" / "distill" / "rollouts").iterdir()):
        assert (tmp_path / "run" / "distill" / "rollouts" / file.name).read_bytes() == file.read_bytes()


def test_a_run_killed_again_and_again_still_arrives(unbroken: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path)
    tiny.write_traces(tmp_path, recipe)
    for _ in range(20):
        if in_a_process_killed_at(40, lambda: sft(recipe)):
            break
    assert weights_of(tmp_path / "run" / "sft") == weights_of(unbroken / "run" / "sft")


@pytest.mark.parametrize("operation", [1, 4, 7, 11, 12, 14])
def test_killed_traces_and_evaluation_end_in_the_same_rows(operation: int, tmp_path: Path) -> None:
    whole, broken = tiny.recipe(tmp_path / "a"), tiny.recipe(tmp_path / "b")
    make_traces(whole)
    evaluate(whole)
    for work in (lambda: make_traces(broken), lambda: evaluate(broken)):
        assert not in_a_process_killed_at(operation, work)
        assert in_a_process_killed_at(10**9, work)
    for name in ("traces/traces.jsonl", "eval/base/image.jsonl", "eval/base/text.jsonl"):
        assert (tmp_path / "a/run" / name).read_bytes() == (tmp_path / "b/run" / name).read_bytes()
    results = [json.loads((tmp_path / home / "run/eval/results.json").read_text()) for home in ("a", "b")]
    for part in ("sets", "stages", "comparisons"):  # `run` names the directory of the model
        assert results[0][part] == results[1][part]


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    files.append_jsonl(file, [{"a": 1}, {"a": 2}])
    with file.open("a") as f:
        f.write('{"a": 3')
    assert files.read_jsonl(file) == [{"a": 1}, {"a": 2}]
    files.cut_rows(file, 1)
    files.append_jsonl(file, [{"a": 4}])
    assert files.read_jsonl(file) == [{"a": 1}, {"a": 4}]
