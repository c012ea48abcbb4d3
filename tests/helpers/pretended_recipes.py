"""Recipes of published models and benchmarks on the pretended device, with small models in their place
(`pretended_cuda.run`)."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.utils._python_dispatch import _disable_current_modes

import tiny
from chat_server import ChatServer, completion
from package import ROOT
from pretended_runs import STAGES, rows, updates
from tried import every_time
from vold.data.benchmarks.benchmark import PIXELS
from vold.evals.evaluate import evaluate
from vold.run.console import console
from vold.run.files import read_jsonl
from vold.run.recipe import load_recipe, recipe_from

ANSWERS = 12
"""Tokens of a response."""
DIGITS = "{kind: digits, split: train, form: %s, size: 8, seed: 1}"
SMALL = (
    *(f"tasks.{name}={DIGITS % 'text'}" for name in ("cold_start", "overlap", "train")),
    f"tasks.image={DIGITS % 'image'}", "traces.sampling.max_new_tokens=24", "traces.max_tokens=40",
    "traces.batch_size=4", "sft.steps=1", "sft.batch_size=4", f"align.sampling.max_new_tokens={ANSWERS}",
    "align.rollouts=2", "distill.engine=null", "distill.prompts_per_step=2", "distill.rollouts=3", "distill.steps=1",
    f"distill.sampling.max_new_tokens={ANSWERS}",
    f"eval={{tasks: [image], sampling: {{max_new_tokens: {ANSWERS}, temperature: 0}}}}",
)  # fmt: skip
"""What makes a recipe of the paper short, on data that is here and without servers."""


def trained(stages: dict[str, list[str]]) -> dict[str, Any]:
    """Stages of the paper's recipes by name: rows of metrics, and updates as of `pretended_runs.updates`."""
    console.quiet = True
    every_time(False)
    found: dict[str, Any] = {}
    for name, wanted in stages.items():
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            tiny.student().save(home / "student")
            tiny.teacher().save(home / "teacher")
            models = [f"student.path={home}/student", f"teacher={{path: {home}/teacher, dtype: bfloat16}}"]
            where = [f"run.dir={home}/run", "run.device=cuda"]
            recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", [*SMALL, *models, *where])
            found[name] = {}
            for stage in wanted:
                with updates() as updated:
                    STAGES[stage](recipe)
                found[name][stage] = {"rows": rows(recipe, stage), "updates": updated}
    return found


def evaluated() -> dict[str, Any]:
    """recipes/eval-mini.yaml on either device, and recipes/paper-eval.yaml on the card with a judge that says "A":
    responses by benchmark."""
    console.quiet = True
    every_time(False)
    mini = yaml.safe_load((ROOT / "recipes" / "eval-mini.yaml").read_text())
    paper = yaml.safe_load((ROOT / "recipes" / "paper-eval.yaml").read_text())
    model, sampling = str(ROOT / mini["student"]["path"]), {"max_new_tokens": ANSWERS}
    for spec in mini["eval"]["benchmarks"].values():
        spec["path"] = str(ROOT / spec["path"])
    for name, spec in paper["eval"]["benchmarks"].items():
        spec |= mini["eval"]["benchmarks"][name]
    for raw in (mini, paper):
        raw["student"]["path"] = model
        raw["eval"]["sampling"] |= sampling
    mini["eval"]["samples"] = 1
    out = {f"eval-mini, {device}": responses(mini, device) for device in ("cpu", "cuda")}
    with ChatServer(lambda body: completion("A")) as judge, pytest.MonkeyPatch.context() as patch:
        patch.setitem(PIXELS, "vlmevalkit", (64 * 28 * 28, 16384 * 28 * 28))  # a twentieth of what a picture has there
        paper["eval"]["judge"] = {"urls": [judge.url], "model": "judge"}
        out["paper-eval, cuda"] = responses(paper, "cuda")
    return out


def responses(raw: dict[str, Any], device: str) -> dict[str, list[str]]:
    """What a model said in an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        raw["run"] = {**raw["run"], "dir": f"{folder}/run", "device": device}
        with _disable_current_modes() if device == "cpu" else contextlib.nullcontext():
            evaluate(recipe_from(raw, where="test recipe"))
        files = sorted((Path(folder) / "run" / "eval" / "base").glob("*.jsonl"))
        return {file.stem: [str(row["response"]) for row in read_jsonl(file)] for file in files}
