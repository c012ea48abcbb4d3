"""What `make gpu` measures, at its smallest: on the CPU as it is called, and on the pretended device."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import pretended_cuda
from benchmarks.gpu import bundle
from benchmarks.gpu.__main__ import MEASUREMENTS, main, measure
from benchmarks.gpu.children import in_child
from benchmarks.gpu.figures import FIGURES, Figure, shown, table
from benchmarks.gpu.pair import LADDER, TINY, Given, Shape, shape_for
from benchmarks.gpu.report import commit
from gpu_docs import REPORTS

GIB = 2**30
DEVICES = pytest.mark.parametrize("device", ["cpu", "cuda"])


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle where it was unpacked, without wheels."""
    home = tmp_path_factory.mktemp("bundle")
    bundle.gather(home / "vold-gpu", [])
    bundle.pack(home / "vold-gpu", home / "whole.tar.xz")
    with tarfile.open(home / "whole.tar.xz") as archive:
        archive.extractall(home / "there", filter="data")
    return home / "there" / "vold-gpu"


@pytest.fixture(scope="module")
def report(unpacked: Path) -> dict[str, Any]:
    """Of a whole call of the bundle on the CPU, by this Python, with nothing of the checkout in reach."""
    out = unpacked.parent / "deep" / "figures.json"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHON": sys.executable}
    command = ["bash", str(unpacked / "run.sh"), "--tiny", "--out", str(out)]
    done = subprocess.run(command, cwd=unpacked.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def figures(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Measurements by device."""
    there = pretended_cuda.run("pretended_measurements:measured", home=str(tmp_path_factory.mktemp("card")))
    return {"cpu": report["measurements"], "cuda": there}


def test_every_measurement_ran(report: dict[str, Any]) -> None:
    assert list(report["measurements"]) == list(MEASUREMENTS)
    assert [name for name, found in report["measurements"].items() if "error" in found] == []
    left_out = [name for name, found in report["measurements"].items() if "left out" in found]
    assert left_out == ["kernels", "transfer", "compiled"]
    assert report["card"] == "cpu" and report["shape"]["student"] == "tiny"
    assert report["commit"] == commit()
    assert {"torch", "transformers", "pillow"} <= report["versions"].keys()


@DEVICES
def test_the_sampler_is_timed_on_ids_that_may_come_and_are_drawn(figures: dict[str, Any], device: str) -> None:
    """A model with random weights says next to nothing: its tokens are as likely as ids drawn at random, and many."""
    found = figures[device]["sampler"]
    assert found["tokens"] == 8 * 16 and found["ruled_out_ids"] == 0
    assert found["different_ids"] > 64
    assert found["mean_logp"] == pytest.approx(found["mean_logp_at_random"], abs=0.1)
    assert found["mean_logp_at_random"] == pytest.approx(
        -math.log(505), rel=1e-3
    )  # 512 rows, 3 without a token, 4 placeholders
    assert found["tokens_a_second"] > 0 and found["wall_over_gpu"] > 0


@DEVICES
def test_an_update_that_is_timed_changes_the_weights(figures: dict[str, Any], device: str) -> None:
    found = figures[device]["update"]
    assert found["changed_weights"] > 0.1 and found["share"] > 0
    for rows, length in TINY.updates:
        one = found[f"{rows} x {length}"]
        assert one["grad_norm"] > 0 and one["trained_tokens"] == one["advantages"] == rows * (length - 4)
        assert 0 < one["optimizer_seconds"] < one["seconds"]
        assert one["share"] >= one["share_with_optimizer"] > 0
        assert one["tflops_with_recomputation"] > one["tflops"]


def test_useful_work_is_that_of_the_sizes(figures: dict[str, Any]) -> None:
    """Two layers of 32 and 64: four matrices of attention with half as many keys, three of the MLP; 512 ids."""
    body = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    found = figures["cpu"]["update"]["2 x 16"]
    work = 2 * (16 * 6 * (body + 16 * 32 * 2) + 12 * 6 * 512 * 32)
    passes = found["seconds"] - found["optimizer_seconds"]
    assert found["tflops"] == pytest.approx(work / passes / 1e12, rel=0.01)


@DEVICES
def test_a_step_learns_from_the_teacher(figures: dict[str, Any], device: str) -> None:
    first, second = figures[device]["step"]["rows"]
    assert first["teacher_tokens"] == first["rollout_tokens"] == 2 * 2 * 8
    assert first["grad_norm"] > 0 and second["loss"] != first["loss"]
    assert figures[device]["step"]["seconds"] > 0


def test_a_step_on_a_card_is_set_beside_its_plan(figures: dict[str, Any]) -> None:
    found = figures["cuda"]["step"]
    assert found["memory"].keys() == {"rollouts", "teacher scoring", "update"}
    assert all(p["allocated"] > 0 for p in found["memory"].values())
    update = found["memory"]["update"]
    assert found["planned_over_peak"] == pytest.approx(update["planned"] / update["allocated"])
    assert found["spare_by_phase"].keys() == {"sample", "teacher", "update", "save"}


@DEVICES
def test_state_that_is_offloaded_is_counted(figures: dict[str, Any], device: str) -> None:
    """Three matrices of 64 x 64: a float32 copy and two moments each."""
    found = figures[device]["offload"]
    assert found["gigabytes"] == pytest.approx(3 * 64 * 64 * 12 / 1e9, rel=1e-3)
    assert 0 < found["slower_way_gb_s"] == min(found["gb_s_to_host"], found["gb_s_to_device"])


@DEVICES
def test_parts_are_compared_with_what_they_stand_for(figures: dict[str, Any], device: str) -> None:
    found = figures[device]
    assert 2**-10 < found["attention"]["apart"] < 2e-2  # 8 bits of bfloat16 against float64
    assert max(found["head"]["states_apart"], found["head"]["weights_apart"]) < 1e-2
    assert found["attention"]["packed_over_padded"] > 0
    assert 1 <= len(found["attention"]["packed bfloat16"]["kernels"]) <= 3  # which ones took longest no test can know
    assert found["peaks"]["product_tflops"] > 0


def test_kernels_are_compared_on_a_card(figures: dict[str, Any]) -> None:
    found = figures["cuda"]["kernels"]
    assert max(found["logp"], found["entropy"], found["gradient"]) < 1e-4 and found["other_favourites"] == 0


def test_the_demo_is_held_against_the_cpus_rows(figures: dict[str, Any]) -> None:
    assert figures["cpu"]["demo"]["apart"] == figures["cpu"]["demo"]["other_answers_float32"] == 0
    assert figures["cuda"]["demo"]["other_answers_float32"] == 0 and figures["cuda"]["demo"]["answers"] == 128
    assert len(figures["cuda"]["demo"]["here"]) == 4
    assert 0 < figures["cuda"]["demo"]["apart"] < 1e-4


def test_a_killed_run_goes_on_to_the_same_bits(figures: dict[str, Any]) -> None:
    found = figures["cpu"]["resume"]
    assert found["repeats"] is True and found["resumed"] is True


def test_the_pair_in_4_bits_is_compared_with_what_it_was_made_from(figures: dict[str, Any]) -> None:
    found = figures["cpu"]["quantized"]
    assert [row["teacher_tokens"] for row in found["rows"]] == [2 * 2 * 8] * 2 and found["rows"][0]["grad_norm"] > 0
    assert found["teacher_error"][""]["precision"] == "bfloat16, nf4"
    assert 1e-4 < found["teacher_error"][""]["mean"] < 0.5


def empty() -> dict[str, Any]:
    return {"versions": {}, "measurements": {}}


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def killed() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def refused() -> dict[str, Any]:
    raise RuntimeError("CUDA out of memory")


def hangs() -> dict[str, Any]:
    signal.pause()
    return {}


def test_only_children_touch_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning asks the card how much it has, and of a process that has asked no child can use it."""
    card = {"device": "cuda", "name": "a card", "memory": 80 * GIB}
    monkeypatch.setattr("benchmarks.gpu.__main__.describe_card", lambda: card)
    monkeypatch.setattr("benchmarks.gpu.__main__.shape_for", lambda *_: Shape(os.getpid(), 8))
    monkeypatch.setitem(MEASUREMENTS, "peaks", lambda given: {"layers": given.shape.layers})
    monkeypatch.setattr("sys.argv", ["gpu", "peaks", "--out", str(tmp_path / "figures.json")])
    main()
    found = json.loads((tmp_path / "figures.json").read_text())["measurements"]
    assert found["peaks"]["layers"] != os.getpid()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="CUDA is in use in this process"):
        in_child(empty, 60)


@pytest.mark.parametrize(("asked", "run"), [("offload", ["offload"]), ("sampler", ["models", "sampler"])])
def test_the_models_are_made_where_a_measurement_reads_them(
    asked: str, run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MEASUREMENTS:
        monkeypatch.setitem(MEASUREMENTS, name, lambda given: {})
    monkeypatch.setattr("sys.argv", ["gpu", "--tiny", asked, "--out", str(tmp_path / "figures.json")])
    main()
    assert list(json.loads((tmp_path / "figures.json").read_text())["measurements"]) == run


@pytest.mark.parametrize(
    ("work", "said"),
    [(killed, "status -9"), (refused, "RuntimeError: CUDA out of memory"), (hangs, "cut off after 1 s")],
)
def test_what_breaks_a_measurement_is_said(work: Any, said: str) -> None:
    assert said in in_child(work, 1 if work is hangs else 60)["error"]


def test_a_measurement_that_fails_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASUREMENTS, "peaks", lambda given: killed())
    monkeypatch.setitem(MEASUREMENTS, "offload", lambda given: {"gigabytes": 1.23456})
    out, report = tmp_path / "figures.json", empty()
    measure(Given("cpu", TINY, tmp_path), ["peaks", "offload"], report, out, time.monotonic())
    found = json.loads(out.read_text())["measurements"]
    assert "status -9" in found["peaks"]["error"] and found["offload"]["gigabytes"] == 1.235


def test_when_time_is_up_the_rest_is_left_out(tmp_path: Path) -> None:
    out, report = tmp_path / "figures.json", empty()
    measure(Given("cpu", TINY, tmp_path), ["peaks"], report, out, time.monotonic() - 600)
    assert json.loads(out.read_text())["measurements"] == {"peaks": {"left out": "no time was left"}}


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match=r"(?s)there is no GPU.*--tiny"):
        main()


# -- sizes and tables --------------------------------------------------------------------------------------------------


def test_a_smaller_card_or_host_gets_less_of_the_models(tmp_path: Path) -> None:
    def shape(card: float, host: float) -> tuple[int, int]:
        found = shape_for(int(card * GIB), int(host * GIB), tmp_path)
        return found.layers, found.budget

    assert shape(79.1, 64) == (36, 16384)
    small = shape(22, 64)
    assert small in LADDER and LADDER[-1] != small != LADDER[0]
    assert shape(79.1, 20) not in (LADDER[0], LADDER[-1])


def test_a_figure_is_met_missed_or_not_measured() -> None:
    most, least, none = (
        Figure("a", ("m", "x"), "s", 12),
        Figure("b", ("m", "y"), "", 0.45, least=True),
        Figure("c", ("m", "z")),
    )
    cells = [shown(f, {"m": {"x": 12.0, "y": 0.4, "z": 3}}) for f in (most, least, none)]
    assert cells == ["12 s, met", "0.4, **missed**", "3"]
    assert [shown(f, {"m": {"error": "no memory"}}) for f in (most, least, none)] == [
        "not measured",
        "not measured",
        "-",
    ]


def test_every_figure_that_is_shown_is_one_that_is_measured(figures: dict[str, Any]) -> None:
    """At the smallest an update has other sizes, and on the CPU some are not there."""
    found = {**figures["cpu"], **figures["cuda"]}
    found["update"] = {"2 x 8192": found["update"]["2 x 16"], "32 x 512": found["update"]["4 x 8"], **found["update"]}
    missing = {f.place for group in FIGURES.values() for f in group if f.of(found) is None}
    on_a_gpu = ("transfer", "compiled", "quantized")
    assert missing == {f.place for group in FIGURES.values() for f in group if f.place[0] in on_a_gpu}


def test_the_table_has_every_card_that_was_measured() -> None:
    lines = table(list(REPORTS.values())).splitlines()
    assert "H100 80GB HBM3, 399992d" in lines[0]
    assert len({line.count("|") for line in lines}) == 1
    assert [line for line in lines if line.startswith("| optimizer state")] == [
        "| optimizer state, the slower way | at least 45 GB/s | 1.3 GB/s, **missed** | 49.84 GB/s, met |"
    ]
