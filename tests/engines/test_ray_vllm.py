"""A run on several machines whose rollouts are on real vLLM servers; `make test-engines` has it. test_ray_cluster.py
has more, with stand-ins.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine_backends import FORKING
from killed import weights_of
from package import ROOT
from ray_nodes import nodes

pytestmark = pytest.mark.engines


def test_a_run_on_vllm_that_lost_a_machine_ends_in_the_weights_of_one_that_lost_nothing(tmp_path: Path) -> None:
    """Two servers for rollouts and two training processes; a machine with one of each is lost after the first state.
    Up to stage 2 both runs are one."""
    runs = {name: tmp_path / name for name in ("whole", "broken")}
    words = ["run", str(ROOT / "recipes/launch-mini.yaml"), "run.dir=run", "cluster={nodes: 2, gpus: 0}", "eval=null"]
    words += [f"student.path={ROOT}/recipes/launch-mini/student", "teacher.server=null", "sft.steps=10"]
    words += ["distill.engine.launch.devices=[cpu, cpu]", f"distill.engine.launch.python={FORKING}"]
    runs["whole"].mkdir()
    with nodes("a", "b", "c") as cluster:
        cluster.vold(runs["whole"], *words).end(0)
        shutil.copytree(runs["whole"], runs["broken"], ignore=shutil.ignore_patterns("distill"))
        run = cluster.vold(runs["broken"], *words)
        run.until(runs["broken"] / "run/distill/step-000002")
        lost = run.machine_of("distill")
        cluster.lose(lost)
        run.end(2)
        assert f"`distill` has lost the processes on {lost}" in run.said
        cluster.vold(runs["broken"], *words).end(0)
    whole, broken = (weights_of(home / "run/distill") for home in runs.values())
    assert whole == broken
