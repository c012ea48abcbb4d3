"""Teachers of the demo world of another size than `demo:teacher`, trained as it was, for a study of teacher sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.digits_models import STEPS, new_teacher, pretrain, teacher_rows
from vold.run.files import read_json
from vold.run.summaries import TracesSummary

SMALL, LARGE = (48, 2), (192, 6)
"""Width and layers; `demo:teacher` has 128 and 4."""


def small_teacher(out: Path) -> None:
    """Make a teacher of about a thirteenth of the demo teacher's parameters and save it as `out`."""
    _train(out, SMALL)


def large_teacher(out: Path) -> None:
    """Make a teacher of about three times the demo teacher's parameters and save it as `out`."""
    _train(out, LARGE)


def _train(out: Path, size: tuple[int, int], steps: int = STEPS["teacher"]) -> None:
    width, layers = size
    policy = new_teacher(2, width=width, layers=layers)
    pretrain(policy, teacher_rows("a"), steps=steps, lr=2e-3, seed=2)
    policy.save(out)


def teacher_right(stage: Path) -> dict[str, Any] | None:
    """The share of a cold start's traces that are right; None of a stage without traces of its own."""
    file = stage.parent / "traces" / "summary.json"
    if not file.exists():
        return None
    found = read_json(file, TracesSummary)
    return {"accuracy": found.correct / found.answers, "n": found.answers}
