"""The demo on a card: its rows beside a CPU's, and a run that is killed and goes on."""

from __future__ import annotations

import hashlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks.gpu.children import in_child
from benchmarks.gpu.pair import ROOT
from vold.run.files import read_jsonl
from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.step import update
from vold.training.traces import make_traces

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu.pair import Given
    from vold.run.recipe import Recipe

SHORT = (
    "tasks.cold_start.size=8", "sft.steps=2", "sft.batch_size=4", "tasks.train.size=12", "distill.prompts_per_step=2",
    "distill.rollouts=3", "distill.steps=2", "distill.checkpoint_every=1",
)  # fmt: skip
COMPARED = ("loss", "grad_norm")


def demo(given: Given) -> dict[str, Any]:
    """Two steps of the cold start and of stage 2 in float32, here and on the CPU: the largest relative difference."""
    rows = {}
    for name, device in (("cpu", "cpu"), ("here", given.device)):
        recipe = short(given.scratch / f"demo-{name}", device)
        make_traces(recipe)
        sft(recipe)
        distill(recipe)
        rows[name] = [
            {key: row[key] for key in COMPARED}
            for stage in ("sft", "distill")
            for row in read_jsonl(recipe.run.dir / stage / "metrics.jsonl")
        ]
    pairs = zip(rows["cpu"], rows["here"], strict=True)
    apart = max(abs(a[key] - b[key]) / abs(a[key]) for a, b in pairs for key in COMPARED)
    return {"apart": apart, **rows}


def resume(given: Given) -> dict[str, Any]:
    """Weights after two steps: twice unbroken, and killed in the second and started again. PyTorch is asked for
    operators that repeat; where two unbroken runs differ all the same, a broken one can tell nothing."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    told = []
    for name, killed in (("one", False), ("other", False), ("broken", True), ("broken", False)):
        ended = in_child(partial(run_to, given.scratch / f"resume-{name}", given.device, killed=killed), 600)
        if killed != ("weights" not in ended):
            return {"error": ended.get("error", "it was not killed")}
        told.append(ended.get("weights"))
    one, other, _, broken = told
    return {"repeats": one == other, "resumed": one == broken}


def run_to(home: Path, device: str, *, killed: bool) -> dict[str, Any]:
    """Stage 2 of the demo; what its weights are afterwards. Killed, it ends in the second step's update."""
    torch.use_deterministic_algorithms(True, warn_only=True)

    def stopped(learner: Any, rollouts: Any, step: Any, teacher: Any) -> Any:
        if killed and step.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(learner, rollouts, step, teacher)

    with patch("vold.training.distill.update", stopped):
        final = distill(short(home, device, "distill.init=demo:student"))
    return {"weights": hashlib.sha256((final / "model.safetensors").read_bytes()).hexdigest()}


def short(home: Path, device: str, *words: str) -> Recipe:
    """The demo's recipe, two steps of each stage."""
    where = [f"run.dir={home}", f"run.device={device}", "student.dtype=float32", "teacher.dtype=float32"]
    return load_recipe(ROOT / "recipes" / "demo.yaml", [*SHORT, *where, *words])
