"""The arithmetic of the benchmark's table, and that both sides of a comparison get the same rollouts."""

from __future__ import annotations

import json

import pytest

from benchmark_scripts import HOME, load


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


@pytest.mark.parametrize("method", load("python_stages").METHODS)
def test_the_stages_of_a_step_in_python_are_measured(method: str) -> None:
    stages = load("python_stages")
    rows = stages.measure(method, stages.Size(10, 64, 4))
    stages_in_order = "values ask gather scores credit describe counts cut flatten collate store load"
    assert [r.stage for r in rows] == stages_in_order.split()
    assert all(r.seconds >= 0 and 0 <= r.mib < 10 for r in rows)


def test_every_plain_name_that_is_promised_has_a_row_in_the_stored_results() -> None:
    stored = json.loads((HOME / "results" / "latest.json").read_text())
    rows = {r["name"]: r for r in stored["rows"]}
    promised = (
        "update/time_vs_trl", "update/memory_vs_trl", "step/time_vs_trl", "head/memory_vs_dense", "head/time_vs_dense",
        "roofline/update_cpu", "packing/efficiency", "teacher/tokens_scored_over_used", "growth/tokens_8k_to_64k",
    )  # fmt: skip
    for name in promised:
        assert {"name", "ratio", "ours", "peer", "unit", "spread"} <= rows[name].keys(), name
    for name in ("update/time_vs_trl", "update/memory_vs_trl", "step/time_vs_trl"):
        shapes = [rows[f"{name}/{shape}"]["ratio"] for shape in ("smollm2", "qwen2_5_vl")]
        assert rows[name]["ratio"] == max(shapes), name


def test_the_filling_of_a_server_is_measured() -> None:
    """Six places, each request a fifth of a second: all of them are held at once, and every request is answered."""
    found = load("serving").measure("figure", 32, 6, 24, 6, 0.2)
    assert (found["answered"], found["peak"]) == (24, 6)
    assert 0 < found["share"] <= 1.001 and found["ms"] > 0


def test_what_running_ahead_gains_is_compared_seed_by_seed() -> None:
    """Ratios 1/2 and 3/4; the third seed has one run only. The first step does not count: nothing is ahead of it."""
    ahead = load("ahead")
    step = {"seconds_sample": 2.0, "seconds_teacher": 0.5, "seconds_update": 0.5}
    assert ahead.seconds_a_step([step | {"seconds_sample": 99.0}, step, step | {"seconds_update": 1.5}]) == 3.5
    runs = [(1, 0, 2.0, 0.5), (1, 1, 1.0, 0.25), (2, 0, 4.0, 0.75), (2, 1, 3.0, 0.75), (3, 0, 9.0, 1.0)]
    keys = ("seed", "ahead", "seconds", "accuracy")
    assert ahead.summary([dict(zip(keys, run, strict=True)) for run in runs]) == {
        "seeds": 2, "ratio": 0.625, "spread": [0.5, 0.75], "seconds_ahead_0": 3.0, "seconds_ahead_1": 2.0,
        "accuracy_ahead_0": 0.625, "accuracy_ahead_1": 0.5,
    }  # fmt: skip


def test_places_count_from_when_all_servers_work_until_the_tail() -> None:
    """Two servers of four places; the last two rows are the tail, when no request waits to be sent."""
    rows = [(9, [0, 4]), (8, [4, 2]), (3, [2, 4]), (0, [1, 1]), (0, [0, 0])]
    assert load("filled").shares(rows, 4) == [0.75, 0.75]
