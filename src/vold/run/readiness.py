"""What the last comparison of student and teacher says against stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import CheckpointError
from vold.run.files import read_json

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

READY = "ready"
"""The verdict of `vold align` under which stage 2 makes sense."""


def align_doubt(recipe: Recipe) -> str | None:
    """Why `vold distill` should not be started yet; None where nothing is known against it.

    An objective without a teacher, and a start from a model of the recipe's own (`distill.init`), are not judged.
    """
    d, final = recipe.distill, recipe.run.dir / "sft" / "final"
    if d is None or not d.objective.uses_teacher or d.init is not None:
        return None
    found = _compared(recipe)
    if not final.is_dir():
        return None
    compared = str(found.get("student"))
    # By its last parts: a run may have been moved since, or branched.
    if compared == recipe.learner.path or Path(compared).parts[-2:] != final.parts[-2:]:
        return "student and teacher have not been compared since the cold start: run `vold align` first"
    if found.get("verdict") == READY:
        return None
    return f"the last verdict of `vold align` was {str(found.get('verdict'))!r}: {found.get('words')}"


def cold_start_first(recipe: Recipe) -> bool:
    """Whether `vold align` has last found the models too far apart, with the recipe's cold start still to come."""
    trained = recipe.sft is None or (recipe.run.dir / "sft" / "final").is_dir()
    return not trained and _compared(recipe).get("verdict", READY) != READY


def longer_cold_start(recipe: Recipe) -> list[str]:
    """The key that doubles the steps of a cold start after which `vold align` still found the models too far apart."""
    if recipe.sft is None or align_doubt(recipe) is None:
        return []
    return [f"sft.steps={2 * recipe.sft.steps}"]


def _compared(recipe: Recipe) -> dict[str, object]:
    """What the last comparison left; nothing of one that is not there or not whole."""
    try:
        return read_json(recipe.run.dir / "align" / "align.json", dict, absent={})
    except CheckpointError:
        return {}
