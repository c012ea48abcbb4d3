"""Two agents of torchrun, as on two machines: one is lost with all it has started, and both are started again."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from engine_backends import text_model
from served import on, raw_recipe
from vllm_server import VllmServer
from vold.engines.launch.server import HeldPort
from vold.run.recipe import recipe_from
from vold.training.distill import distill

pytestmark = pytest.mark.processes
SECONDS = 300


def agents(file: Path, port: HeldPort) -> list[subprocess.Popen[str]]:
    """One of each of two nodes, with one process each."""
    words = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port.number}"]
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    work = ["-m", "vold.cli", "distill", str(file)]
    return [
        subprocess.Popen(
            [*command, f"--node-rank={i}", *work], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for i in (0, 1)
    ]


def lose(agent: subprocess.Popen[str]) -> None:
    """Kill an agent and its processes, as a machine does that loses its power; they are gone when this returns."""
    worker = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    for pid in (agent.pid, *map(int, worker)):
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], SECONDS)[0]
        os.close(handle)


def test_a_run_of_two_agents_that_lost_one_ends_in_the_weights_of_one_process(tmp_path: Path) -> None:
    raw = raw_recipe(tmp_path)
    raw["run"]["timeout_minutes"] = 0.1
    raw["distill"]["checkpoint_every"] = 1
    asked, answer = threading.Event(), threading.Event()

    def hook(path: str, body: dict[str, Any]) -> None:
        """Both ask the teacher for the first time after a state; they are answered when one of them is lost."""
        if (tmp_path / "run/distill/step-000001").is_dir() and not answer.is_set():
            asked.set()
            assert answer.wait(SECONDS)

    with VllmServer(text_model(1)) as server:
        raw["teacher"]["server"] = on(server)
        whole = distill(recipe_from({**raw, "run": raw["run"] | {"dir": str(tmp_path / "whole")}}, where="test"))
        (file := tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
        server.hook = hook
        first, second = agents(file, port := HeldPort())
        assert asked.wait(SECONDS)
        lose(second)
        answer.set()
        said = first.communicate(timeout=SECONDS)[0]
        second.communicate(timeout=SECONDS)
        assert first.returncode == 1
        seen = r"rank 1 did not arrive: it was last seen in `(sample|teacher)` of step [12], at vold\."
        assert re.search(rf"vold distill \[process 0\]: {seen}", said), said
        for rank, agent in enumerate(agents(file, port)):
            said = agent.communicate(timeout=SECONDS)[0]
            assert agent.returncode == 0, said
            assert ("distill: 3/3" in said) == (rank == 0)  # one of them speaks
        port.free()
    weights, expected = (load_file(f / "model.safetensors") for f in (tmp_path / "run/distill/final", whole))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=4e-6)
