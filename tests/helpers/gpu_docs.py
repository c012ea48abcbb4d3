"""The tables of docs/gpu.md, from the files of measured figures, and the plan that they are set beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import name_of, table
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model.memory import plan
from vold.run.recipe import load_recipe

ROOT = Path(__file__).parents[2]
REPORTS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "benchmarks" / "results").glob("gpu-*.json"))
}
"""What was written down of each card, by the file's name."""
H100: dict[str, Any] = REPORTS["gpu-h100"]["measurements"]
AS_MEASURED = [
    "teacher.server=null", "distill.engine=null", "eval.endpoint=null", "traces=null", "distill.prompts_per_step=8",
    "distill.rollouts=4", "distill.sampling.max_new_tokens=512", "eval.sampling.max_new_tokens=64", "eval.batch_size=8",
]  # fmt: skip
"""What makes recipes/qwen2_5_vl-3b.yaml the run that was measured."""


def planned(*overrides: str) -> dict[str, float]:
    """GiB that PyTorch is to hold in every phase."""
    recipe = load_recipe(ROOT / "recipes" / "qwen2_5_vl-3b.yaml", [*AS_MEASURED, *overrides])
    return {p.name: p.held / 2**30 for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B)}


def figures() -> str:
    """Every figure of every card, with its target."""
    return table(list(REPORTS.values()))


def memory() -> str:
    """The plan beside what was measured on every card."""
    plans = planned("run.offload=true")
    cards = [(name_of(report), report["measurements"]["step"]["memory"]) for report in REPORTS.values()]
    phases = dict.fromkeys(phase for _, found in cards for phase in found)
    rows = ["| phase | planned | " + " | ".join(f"{name}: allocated | reserved" for name, _ in cards) + " |"]
    rows.append("|---|---" + "|---|---" * len(cards) + "|")
    for phase in phases:
        peaks = [found.get(phase, {}).get(kind) for _, found in cards for kind in ("allocated", "reserved")]
        now = f"{plans[phase]:.1f}" if phase in plans else "-"
        rows.append(f"| {phase} | {now} | " + " | ".join("-" if p is None else f"{p:.1f}" for p in peaks) + " |")
    return "\n".join(rows)
