"""The arithmetic of the benchmark's table, and that both sides of a comparison get the same rollouts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HOME = Path(__file__).parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HOME / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_row_is_the_median_of_ratios_taken_turn_by_turn() -> None:
    """Ratios 1/2, 3/4, 4/20: median 0.5. The ratio of the medians would be 3/4."""
    got = load("run").row("x", [1.0, 3.0, 4.0], [2.0, 4.0, 20.0], "s")
    assert (got["ratio"], got["ours"], got["peer"], got["spread"]) == (0.5, 3.0, 4.0, [0.2, 0.75])


def test_the_plain_name_is_the_worse_shape() -> None:
    run = load("run")
    rows = [run.row(f"update/{s}", [v], [1.0], "s") for s, v in (("smollm2", 0.3), ("qwen2_5_vl", 0.4))]
    (plain,) = run.worst([*rows, run.row("packing/efficiency", [0.9], [1.0], "share")])
    assert (plain["name"], plain["ratio"], plain["shape"]) == ("update", 0.4, "qwen2_5_vl")


@pytest.mark.parametrize("silent", [0, 2])
def test_stored_rollouts_are_uneven_and_silent_where_asked(silent: int) -> None:
    shapes = load("shapes")
    prompts, rollouts = shapes.stored_rollouts(4, 64, size=500, silent=silent)
    lengths = [len(r.completion.ids) for r in rollouts]
    assert len(prompts) == 4 and len(rollouts) == 16
    assert max(lengths) == 64 and min(lengths) < 32
    assert [any(r.advantage) for r in rollouts] == [g >= silent for g in range(4) for _ in range(4)]
    assert shapes.stored_rollouts(4, 64, size=500, silent=silent)[1] == rollouts
