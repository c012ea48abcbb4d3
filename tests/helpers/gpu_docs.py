"""The tables of docs/gpu.md, from the file of measured figures, and the plan that they are set beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model.memory import plan
from vold.run.recipe import load_recipe

ROOT = Path(__file__).parents[2]
FIGURES: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "gpu-h100.json").read_text())
AS_MEASURED = [
    "teacher.server=null", "distill.engine=null", "traces=null", "distill.prompts_per_step=8", "distill.rollouts=4",
    "distill.sampling.max_new_tokens=512", "eval.sampling.max_new_tokens=64", "eval.batch_size=8",
]  # fmt: skip
"""What makes recipes/qwen2_5_vl-3b.yaml the run that was measured."""


def planned(*overrides: str) -> dict[str, float]:
    """GiB that PyTorch is to hold in every phase."""
    recipe = load_recipe(ROOT / "recipes" / "qwen2_5_vl-3b.yaml", [*AS_MEASURED, *overrides])
    return {p.name: p.held / 2**30 for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B)}


def memory() -> str:
    """The plan beside what was measured."""
    plans = planned("run.offload=true")
    rows = ["| phase | planned | allocated | reserved |", "|---|---|---|---|"]
    for phase, figures in FIGURES["memory_gib"].items():
        now = f"{plans[phase]:.1f}" if phase in plans else "-"
        rows.append(f"| {phase} | {now} | {figures['allocated']} | {figures.get('reserved', '-')} |")
    return "\n".join(rows)


def rates() -> str:
    """What was reached."""
    f = FIGURES
    update, sampler, copies = f["update"], f["sampler"], f["copies_gb_s"]
    found = {
        "an 8192 x 8192 x 8192 product in bfloat16": f"{f['peaks']['product_tflops']} TFLOP/s",
        f"update, {update['rows']} rows of {update['tokens']} tokens, all products": f"{update['tflops']} TFLOP/s",
        "the same without those made again": f"{update['tflops_without_recomputation']} TFLOP/s",
        f"sampler in the process, {sampler['rows']} rows": f"{sampler['ms_a_token']} ms a token of each row, "
        f"{sampler['gpu_ms_a_token']} of them on the GPU",
        "a copy to the host, pageable memory": f"{copies['device_to_host_pageable']} GB/s",
        "a copy to the device, pageable memory": f"{copies['host_to_device_pageable']} GB/s",
        "either way, pinned memory that is kept": f"{copies['pinned']} GB/s",
    }
    return "\n".join(["| what | measured |", "|---|---|", *(f"| {k} | {v} |" for k, v in found.items())])
