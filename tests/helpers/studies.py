"""A small study, and arms with results that are given."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

import tiny
from vold.evals.study_results import ArmResult, Measure, StudyResults, UnitResult

if TYPE_CHECKING:
    import pytest


def begin_as_copies(patch: pytest.MonkeyPatch) -> None:
    """Processes that are started begin as copies of this one, which has loaded what takes seconds to load."""
    copies = multiprocessing.get_context("fork")
    patch.setattr(multiprocessing, "get_context", lambda how: copies)


def ran(seed: int, **measures: Measure) -> UnitResult:
    return UnitResult(seed=seed, rate=0.1, measures=measures, seconds=1.0)


def arm(values: list[float]) -> ArmResult:
    return ArmResult(0.1, {}, tuple(ran(i + 1, image=Measure(accuracy=v)) for i, v in enumerate(values)))


def results(arms: dict[str, ArmResult], columns: dict[str, str] | None = None) -> StudyResults:
    return StudyResults(arms=arms, claims={}, columns=columns, commit="c", wall_seconds=1.0)


def study_dict(home: Path) -> dict[str, object]:
    recipe = tiny.recipe_dict(home)
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    tasks = {"image": {"kind": "digits", "split": "select", "form": "image", "size": 4}}
    return {
        "recipe": str(home / "recipe.yaml"),
        "set": {
            "tasks.train.seed": "{seed}",
            "sft.steps": 2,
            "distill.steps": 2,
            "traces.sampling.max_new_tokens": 64,
        },
        "workers": 1,
        "seeds": [1, 2],
        "select_seeds": [9],
        "select_on": "image",
        "select_tasks": tasks,
        "test_tasks": {"image": {**tasks["image"], "split": "test"}},
        "arms": {
            "base": {},
            "direct": {"stage": "distill", "rates": [1e-3, 1e-2]},
            "grpo": {
                "stage": "distill",
                "after": "direct",
                "rates": [1e-3, 1e-2],
                "set": {"distill.objective": {"method": "grpo"}},
            },
        },
        "claims": {"c": {"claim": "x", "better": "grpo", "worse": "base", "measure": "image", "rule": "gain"}},
    }
