"""Two processes do what one does: loss, gradients, weights and rollouts; and states that either can go on from."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import exchanges
import tiny
import two_processes
from stored import stored_rows
from vold.engines.samplers.student import refuse_sleep
from vold.errors import ConfigError
from vold.model.parallel import Processes
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.state_writer import SHARDS

pytestmark = pytest.mark.processes
WITHIN = {"loss": 1e-6, "grad_norm": 1e-6, "weights": 2e-6}
"""Largest differences allowed: float32 sums in another order, and six updates on top of each other."""


def recipe_file(home: Path, name: str, **sections: dict[str, Any]) -> Path:
    """A recipe in a run directory of its own, with the traces that `vold traces` would have left there."""
    raw = tiny.recipe_dict(home)
    raw["sft"]["token_budget"] = 256
    raw["distill"] |= {"token_budget": 128, "prompts_per_step": 3}
    for key, values in sections.items():
        raw[key] |= values
    if not (home / "run").is_dir():
        tiny.write_traces(home, recipe_from(raw, where="test"))
    raw["run"] = raw["run"] | {"dir": str(home / name)}
    shutil.copytree(home / "run" / "traces", home / name / "traces")
    file = home / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def one(file: Path, *stages: Any) -> None:
    recipe = recipe_from(yaml.safe_load(file.read_text()), where=str(file))
    for stage in stages:
        stage(recipe)


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command(verb: str, file: Path, processes: int) -> list[str]:
    return [*(TORCHRUN if processes == 2 else [sys.executable]), "-m", "vold.cli", verb, str(file)]


def two(verb: str, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(verb, file, 2), capture_output=True, text=True, timeout=300)


def compare(first: Path, second: Path, stage: str) -> None:
    rows = [read_jsonl(run / stage / "metrics.jsonl") for run in (first, second)]
    assert len(rows[0]) == len(rows[1]) == 6
    for mine, theirs in zip(*rows, strict=True):
        for key in ("loss", "grad_norm"):
            assert theirs[key] == pytest.approx(mine[key], abs=WITHIN[key])
        for key in ("reward", "mean_tokens", "teacher_tokens", "trained_tokens"):
            assert theirs.get(key) == mine.get(key)
    weights = [load_file(run / stage / "final" / "model.safetensors") for run in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=WITHIN["weights"])


SETTINGS: dict[str, dict[str, Any]] = {
    "vold": {
        "run": {"shard_teacher": "always"},
        "distill": {"objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}}},
    },
    "once": {
        "run": {"exchange": "step"},
        "distill": {"objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}}},
    },
    # Compares whole vocabularies, of a teacher that is divided as well, and mixes its traces in.
    "gkd": {"run": {"shard_teacher": "always"}, "distill": {"objective": {"method": "gkd"}}},
    # Every process must come to the same groups, old log-probs and mini-batches.
    "knobs": {
        "distill": {
            "objective": {
                "method": "vold",
                "reference": {"coefficient": 0.1},
                "entropy": {"coefficient": 0.01},
                "surrogate": {"importance_cap": 2.0},
            },
            "updates": {"mini_batches": 2, "epochs": 2},
            "refill": 2,
            "sampling": {"max_new_tokens": 12, "top_p": 0.9},
        }
    },
    "bfloat16": {
        "student": {"dtype": "bfloat16", "activation_checkpointing": True},
        "sft": {"optimizer": {"lr": 1e-2}},
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one-NAME` of one process and `two-NAME` of two, for each of `SETTINGS`."""
    made = tmp_path_factory.mktemp("runs")
    jobs = []
    for name, sections in SETTINGS.items():
        stages = [("sft", sft)] if name == "bfloat16" else [("sft", sft), ("distill", distill)]
        one(recipe_file(made, f"one-{name}", **sections), *(stage for _, stage in stages))
        file = recipe_file(made, f"two-{name}", **sections)
        jobs += [f"{stage}={file}" for stage, _ in stages]
    script = str(Path(two_processes.__file__))
    done = subprocess.run([*TORCHRUN, script, *jobs], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sft: 6/6") == len(SETTINGS)  # one of them speaks
    return made


@pytest.mark.parametrize("name", ["vold", "once", "gkd", "knobs"])
def test_two_processes_train_as_one_does(name: str, home: Path) -> None:
    runs = home / f"one-{name}", home / f"two-{name}"
    for stage in ("sft", "distill"):
        compare(*runs, stage)
    # No rollout was lost or doubled: both stored the same ones.
    files = [run / "distill" / "rollouts" / "step-000005.safetensors" for run in runs]
    rows = [stored_rows(f) for f in files]
    assert [r["ids"] for r in rows[0]] == [r["ids"] for r in rows[1]]


def test_weights_and_gradients_are_exchanged_when_the_recipe_says(tmp_path: Path) -> None:
    """Two layers and the rest make three parts. Each gathers its weights in the forward pass, layers again in the
    backward pass, and adds its gradient up: (3 + 2) + 3 collectives in each of four micro-batches a process, or 3 + 3
    in all."""
    script = str(Path(exchanges.__file__))
    done = subprocess.run([*TORCHRUN, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "micro_batch": {"gathered": 20, "added_up": 12},
        "step": {"gathered": 3, "added_up": 3},
    }


def test_bfloat16_and_activation_checkpointing_on_two_processes(home: Path) -> None:
    """Sums round elsewhere, so a few weights end on a neighbouring number; most are the same."""
    runs = home / "one-bfloat16", home / "two-bfloat16"
    losses = [[row["loss"] for row in read_jsonl(run / "sft" / "metrics.jsonl")] for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=5e-3)
    assert losses[0][-1] < losses[0][0] - 0.2
    weights = [load_file(run / "sft" / "final" / "model.safetensors") for run in runs]
    assert weights[0].keys() == weights[1].keys()
    assert {t.dtype for w in weights for t in w.values()} == {torch.bfloat16}
    same = sum(int((weights[1][name] == value).sum()) for name, value in weights[0].items())
    assert same > 0.85 * sum(value.numel() for value in weights[0].values())


@pytest.mark.parametrize("order", ["two, then one", "one, then two"])
def test_another_number_of_processes_goes_on(order: str, tmp_path: Path) -> None:
    whole, broken = (recipe_file(tmp_path, name) for name in ("whole", "broken"))
    one(whole, sft)
    # Killed in its tracks once there is a state: a signal no program can catch.
    run = tmp_path / "broken" / "sft"
    kill_at_checkpoint(command("sft", broken, 2 if order.startswith("two") else 1), run)
    (state,) = run.glob("step-*")
    assert (state / SHARDS).is_dir() == order.startswith("two")
    assert not (run / "final").exists()
    if order.startswith("two"):
        one(broken, sft)
    else:
        done = two("sft", broken)
        assert done.returncode == 0, done.stderr
    compare(tmp_path / "whole", tmp_path / "broken", "sft")


def kill_at_checkpoint(command: list[str], run: Path) -> None:
    """Kill a run and all it has started as soon as its first state is whole."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(run.glob("step-*")):
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.001)
    finally:
        with contextlib.ExitStack() as opened:
            family = [os.pidfd_open(pid) for pid in family_of(process.pid)]
            for handle in family:
                opened.callback(os.close, handle)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in family:  # a killed process is there until the kernel has taken it apart: its lock is held
                select.select([handle], [], [])
        process.wait()


def family_of(pid: int) -> list[int]:
    """A process and those it has started, and they, parents first."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(word) for word in file.read_text().split()] if file.exists() else []
    return [pid, *(i for child in children for i in family_of(child))]


def test_an_error_of_one_process_ends_all_with_its_message(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "own")
    rows = (tmp_path / "own" / "traces" / "traces.jsonl").read_text().splitlines()
    (tmp_path / "own" / "traces" / "traces.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    done = two("sft", file)
    assert done.returncode != 0
    assert "the teacher's traces are not all there" in done.stderr
    assert "[process 0]" in done.stderr


def test_adapters_and_other_verbs_are_for_one_process(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "own", student={"lora": {"rank": 2}})
    assert "adapters are trained in one process" in two("sft", file).stderr
    assert "`vold check` runs in one process" in two("check", file).stderr


# -- the division of work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "world"), [(5, 2), (3, 4), (8, 8), (0, 2)])
def test_shares_are_consecutive_even_and_complete(count: int, world: int) -> None:
    shares = [list(Processes(rank, world).share(count)) for rank in range(world)]
    assert [i for s in shares for i in s] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_micro_batches_are_balanced_and_every_process_runs_equally_many() -> None:
    """Costs 9, 4, 3, 3 over two: 9 alone against 4 + 3 + 3. The first repeats the cheapest twice, for nothing."""
    rounds = [Processes(rank, 2).rounds([3, 9, 4, 3]) for rank in (0, 1)]
    assert rounds[0] == [(1, True, False), (3, False, False), (3, False, True)]
    assert rounds[1] == [(0, True, False), (2, True, False), (3, True, True)]
    assert Processes().rounds([3, 9]) == [(0, True, False), (1, True, True)]
    assert Processes(1, 2).rounds([]) == []
    assert Processes(1, 2).rounds([5]) == [(0, False, True)]


def test_a_process_repeats_nothing_where_weights_are_exchanged_once_a_step() -> None:
    """It must be there for the one exchange all the same."""
    first, second = Processes(0, 2), Processes(1, 2)
    first.exchange = second.exchange = "step"
    assert first.rounds([3, 9, 4, 3]) == [(1, True, True)]
    assert second.rounds([3, 9, 4, 3]) == [(0, True, False), (2, True, False), (3, True, True)]
    assert second.rounds([5]) == [(0, False, True)]
    assert second.rounds([]) == []


@pytest.mark.parametrize(("part", "where"), [("teacher", "teacher.server"), ("engine", "distill.engine")])
def test_servers_do_not_sleep_under_several_processes(part: str, where: str, tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    server = {"urls": ["http://127.0.0.1:1/v1"], "model": "m", "sleep": True}
    if part == "teacher":
        raw["teacher"]["server"] = server
    else:
        raw["distill"]["engine"] = server
    recipe = recipe_from(raw, where="test")
    refuse_sleep(recipe, Processes(0, 1))
    with pytest.raises(ConfigError, match=where):
        refuse_sleep(recipe, Processes(1, 2))
