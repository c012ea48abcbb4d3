"""The demo on a card: its rows beside a CPU's, and a run that is killed and goes on."""

from __future__ import annotations

import hashlib
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks.gpu.children import Child
from benchmarks.gpu.pair import ROOT
from vold.evals.evaluate import evaluate
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
    "distill.rollouts=3", "distill.steps=2", "distill.checkpoint_every=1", "tasks.image.size=64", "tasks.text.size=64",
    "eval.sampling.temperature=0", "eval.models={base: demo:student}",
)  # fmt: skip
COMPARED = ("loss", "grad_norm")
SECONDS = 600


def demo(given: Given) -> dict[str, Any]:
    """Two steps of the cold start and of stage 2 in float32, here and on the CPU: the largest relative difference.

    And the demo's student on questions with pictures and without, likeliest token by likeliest token: the share of
    answers that are not the CPU's, in float32, and in bfloat16, which has other kernels.
    """
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
    cpu = answers(given.scratch / "demo-cpu", "cpu", "float32")
    other = {}
    for kind in ("float32", "bfloat16"):
        here = answers(given.scratch / f"answers-{kind}", given.device, kind)
        other[f"other_answers_{kind}"] = sum(here[key] != said for key, said in cpu.items()) / len(cpu)
    return {"apart": apart, **other, "answers": len(cpu), **rows}


def answers(home: Path, device: str, kind: str) -> dict[tuple[str, str], str]:
    """What the demo's student says, by set and question."""
    recipe = short(home, device, f"student.dtype={kind}")
    evaluate(recipe)
    found = {}
    for name in ("image", "text"):
        lines = read_jsonl(recipe.run.dir / "eval" / "base" / f"{name}.jsonl")
        found |= {(name, line["id"]): line["response"] for line in lines}
    return found


def resume(given: Given) -> dict[str, Any]:
    """Weights after two steps: alone on the card; unbroken beside a run that is killed in its second step; and that one
    started again. PyTorch is asked for operators that repeat; where two unbroken runs differ all the same, a broken
    one can tell nothing."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

    def begun(name: str, killed: bool = False) -> Child:
        return Child(partial(run_to, given.scratch / f"resume-{name}", given.device, killed=killed))

    one = begun("one").told(SECONDS)
    broken, other = begun("broken", killed=True), begun("other").told(SECONDS)
    if "weights" in broken.told(SECONDS):
        return {"error": "it was not killed"}
    again = begun("broken").told(SECONDS)
    for told in (one, other, again):
        if "error" in told:
            return told
    return {"repeats": one == other, "resumed": one == again}


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
