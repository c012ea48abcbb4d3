"""Runs on several machines, with nodes of Ray on this one in their place; `make test-engines` has them. Servers are
stand-ins here; test_ray_vllm.py has vLLM's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killed import weights_of
from launched import fault, launch, recipe_dict
from ray_nodes import PATH, Command, Nodes, nodes, with_words

pytestmark = pytest.mark.engines


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    with nodes("a", "b", "c") as made:
        yield made


def saved(home: Path, **sections: Any) -> Path:
    """A recipe of traces, cold start and stage 2 on two machines, in a folder of its own."""
    home.mkdir()
    raw = recipe_dict(home) | {"cluster": {"nodes": 2, "gpus": 0}}
    for stage in ("align", "eval"):
        del raw[stage]
    raw["teacher"]["server"]["launch"] = sections.get("teacher", launch())
    raw["distill"]["engine"]["launch"] = sections.get("engine", launch())
    (home / "recipe.yaml").write_text(json.dumps(raw))
    return home


def test_a_run_over_machines_lives_through_their_loss_and_every_end(tmp_path: Path, cluster: Nodes) -> None:
    whole = saved(tmp_path / "whole")
    run = cluster.vold(whole, "run", "recipe.yaml")
    run.end(0)
    assert len(set(re.findall(r"^distill on (\w+)", run.said, re.M))) == 2

    home = saved(tmp_path / "broken", teacher=fault("hold"), engine=fault("hold"))
    teacher, engine = (home / "run" / stage / "servers" / "held" for stage in ("traces", "distill"))
    # A server's machine is lost: the server comes up on another, and the stage goes on.
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(teacher)
    lost = run.machine_of("server teacher-cpu0")
    cluster.lose(lost)
    # SIGTERM in the middle of stage 2.
    run.until(engine)
    assert run.machine_of("server teacher-cpu0") != lost
    run.process.send_signal(signal.SIGTERM)
    run.end(128 + signal.SIGTERM)
    # SIGKILL there. The teacher starts for `align` now.
    engine.unlink()
    aligned = home / "run/align/servers"
    aligned.mkdir(parents=True)
    (aligned / "held").touch()
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(engine)
    run.process.kill()
    run.end(-signal.SIGKILL)
    # A machine that trains is lost there.
    engine.unlink()
    run = cluster.vold(home, "run", "recipe.yaml")
    run.until(engine)
    lost = run.machine_of("distill")
    cluster.lose(lost)
    run.end(2)
    assert f"`distill` has lost the processes on {lost}" in run.said
    # Another takes its place.
    cluster.add("d")
    run = cluster.vold(home, "run", "recipe.yaml")
    run.end(0)
    assert weights_of(home / "run/distill") == weights_of(whole / "run/distill")


SRUN = """\
#!/bin/bash
# As srun: the command once a task, all of them here. Nodes of Ray on one machine have to come up one after the other.
while [[ $1 == --* ]]; do case $1 in --ntasks=*) tasks=${1#*=} ;; esac; shift; done
trap 'kill $(jobs -p); wait' TERM
for ((task = 0; task < tasks; task++)); do
    SLURM_PROCID=$task SLURMD_NODENAME=node$task "$@" &
    until [ -S "$RAY_TMPDIR/ray/session_latest/sockets/raylet" ]; do sleep 0.1; done
done
wait
"""


def test_the_batch_file_runs_under_slurm_ends_in_order_and_goes_on(tmp_path: Path) -> None:
    """With stand-ins for `srun` and `scontrol` that take this machine for all nodes, of which there are many names."""
    home, programs = saved(tmp_path / "job", teacher=fault("hold")), tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost\nseq 100000\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    raw = json.loads((home / "recipe.yaml").read_text())
    del raw["distill"]
    (home / "recipe.yaml").write_text(json.dumps(raw))
    env = os.environ | {"PYTHONPATH": PATH}
    words = [sys.executable, "-m", "vold.cli", "cluster", "--slurm", "recipe.yaml", "--out", "run.sbatch"]
    subprocess.run(words, cwd=home, env=env, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        env |= {"PATH": f"{programs}:{os.environ['PATH']}", "RAY_TMPDIR": short}
        env |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[0-1]"}
        held = home / "run/traces/servers/held"
        for code in (128 + signal.SIGTERM, 0):
            job = Command.begun(["bash", "run.sbatch"], home, env)
            if code:
                job.until(held)
                job.process.send_signal(signal.SIGTERM)
            job.end(code)
            assert not with_words(short), job.said
    assert (home / "run/sft/final").is_dir()
