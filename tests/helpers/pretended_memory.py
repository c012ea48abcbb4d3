"""What moves between the card and the host in each phase of a step, on the pretended device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import tiny
from pretended_cuda.device import counting
from vold.model.loading import load_model
from vold.model.memory import plan
from vold.model.place import Phase, Place
from vold.training.optim import build_optimizer

STEP: tuple[Phase, ...] = ("sample", "teacher", "update", "save")


def moved(home: str) -> dict[str, Any]:
    """Bytes to the card and to the host in each phase of two steps, those planned for a step, and each phase's peak
    beside what the weights take."""
    recipe = tiny.recipe(
        Path(home), run={"offload": True, "device": "cuda"}, student={"path": f"{home}/student", "dtype": "bfloat16"}
    )
    assert recipe.teacher is not None and recipe.distill is not None
    student = load_model(recipe, recipe.learner.path, recipe.learner.dtype, recipe.learner.freeze)
    teacher = load_model(recipe, recipe.teacher.path, recipe.teacher.dtype)
    optimizer = build_optimizer(student, recipe.distill.optimizer)
    place = Place(student.model.device, optimizer)
    place.take_turns()
    place.invite([teacher.model], student.model, late=False)
    steps: list[dict[str, tuple[int, int]]] = []
    for _ in range(2):
        steps.append({})
        for phase in STEP:
            with counting() as counts:
                place.enter(phase)
                if phase == "update":
                    for _, parameter in student.trainable():
                        parameter.grad = torch.zeros_like(parameter, dtype=torch.float32)
                    optimizer.step()
                place.leave()
            steps[-1][phase] = (counts.to_card.total(), counts.to_host.total())
    phases = plan(recipe, student.model.config, teacher.model.config)
    place.enter("sample")
    weights = sum(p.nbytes for p in student.model.parameters())
    peaks = {phase: peak.allocated - weights for phase, peak in place.peaks.items()}
    return {"steps": steps, "peaks": peaks, "planned": {p.name: p.moved for p in phases}}
