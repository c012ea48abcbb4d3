"""A whole step of stage 2 with the paper's pair, and the memory that it takes beside the plan."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks.gpu.clock import GIB, is_real
from benchmarks.gpu.pair import configs, recipe_of
from vold.model.memory import plan
from vold.model.phases import planned_of
from vold.model.place import Place
from vold.run.files import read_jsonl
from vold.training.distill import distill

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given
    from vold.model.place import Phase
    from vold.run.recipe import Recipe

KEPT = (
    "loss", "grad_norm", "teacher_gap", "entropy", "mismatch", "mismatch_mean", "mismatch_kl", "trained_tokens",
    "rollout_tokens", "teacher_tokens", "response_length", "seconds_sample", "seconds_teacher", "seconds_update",
)  # fmt: skip
PLACES: list[Watched] = []


class Watched(Place):
    """The memory of a device, and what was kept of it beyond need after each change of phases."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.spare: dict[str, float] = {}
        PLACES.append(self)

    def enter(self, phase: Phase) -> None:
        """As its base's."""
        super().enter(phase)
        if self.device.type == "cuda":
            spare = (torch.cuda.memory_reserved() - torch.cuda.memory_allocated()) / GIB
            self.spare[phase] = max(spare, self.spare.get(phase, 0.0))


def step(given: Given) -> dict[str, Any]:
    """Two steps of `vold distill`: rollouts, teacher scores, update, with `run.offload`; the figures are the second's.

    Neither the 43 GB of a state nor the model is written. `memory` has GiB by phase: planned for PyTorch, allocated and
    reserved at the peak.
    """
    return steps(given, recipe_of(given))


def quantized(given: Given) -> dict[str, Any]:
    """As `step`, with what recipes/qwen2_5_vl-3b-24gb.yaml changes: both models in NF4, and adapters. Rollouts are of
    128 tokens. `teacher_error`: how far the teacher's log-probs are from those of the weights that it was made from.
    """
    if given.device == "cuda" and not is_real(given.device):
        return {"left out": "bitsandbytes works on a GPU or a CPU"}
    if find_spec("bitsandbytes") is None:
        return {"left out": "bitsandbytes is not installed"}
    recipe = recipe_of(
        given, "student.quantize=nf4", "student.lora={rank: 64, alpha: 128}", "teacher.quantize=nf4",
        f"distill.token_budget={given.per(64, 8192)}", f"distill.sampling.max_new_tokens={given.per(8, 128)}",
    )  # fmt: skip
    found = steps(given, recipe)
    return {**found, "teacher_error": json.loads((recipe.run.dir / "distill" / "quantize-error.json").read_text())}


def steps(given: Given, recipe: Recipe) -> dict[str, Any]:
    """Run a recipe's stage 2."""
    shutil.rmtree(recipe.run.dir, ignore_errors=True)
    PLACES.clear()
    with (
        patch("vold.training.stage.Place", Watched),
        patch("vold.training.stage.StateWriter.begin"),
        patch("vold.training.stage.Training.save"),
    ):
        distill(recipe)
    rows = read_jsonl(recipe.run.dir / "distill" / "metrics.jsonl")
    told = [{k: row[k] for k in KEPT if k in row} for row in rows]
    spent = [sum(row[f"seconds_{p}"] for p in ("sample", "teacher", "update")) for row in rows]
    (place,) = PLACES
    return {"seconds": spent[-1], "seconds_first": spent[0], "rows": told, **memory(given, recipe, place)}


def memory(given: Given, recipe: Recipe, place: Watched) -> dict[str, Any]:
    """The plan beside the peaks of a card; nothing on a CPU."""
    if not place.peaks:
        return {}
    plans = plan(recipe, *configs(given.shape))
    phases = {
        planned.name: {
            "planned": planned.held / GIB,
            "allocated": peak.allocated / GIB,
            "reserved": peak.reserved / GIB,
        }
        for phase, peak in place.peaks.items()
        if (planned := planned_of(plans, "distill", phase)) is not None
    }
    most = max(phases.values(), key=lambda p: p["allocated"])
    return {
        "memory": phases,
        "planned_over_peak": most["planned"] / most["allocated"],
        "short_gib": max(p["reserved"] - p["planned"] for p in phases.values()),
        "spare_gib": max(place.spare.values()),
        "spare_by_phase": place.spare,
    }
