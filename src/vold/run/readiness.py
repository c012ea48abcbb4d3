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


def after_align(recipe: Recipe) -> tuple[str, list[str]]:
    """The verb that comes after `vold align`, and keys for it. Where student and teacher are too far apart that is the
    cold start: with all stages where it is still to come, else with twice as many steps. Where one of them is no
    language model more steps do not help."""
    found = _compared(recipe)
    far = found.get("verdict", READY) != READY and found.get("untrained") is None
    if recipe.sft is not None and far:
        if not (recipe.run.dir / "sft" / "final").is_dir():
            return "run", []
        if align_doubt(recipe) is not None:
            return "sft", [f"sft.steps={2 * recipe.sft.steps}"]
    return recipe.after("align"), []


def _compared(recipe: Recipe) -> dict[str, object]:
    """What the last comparison left; nothing of one that is not there or not whole."""
    try:
        return read_json(recipe.run.dir / "align" / "align.json", dict, absent={})
    except CheckpointError:
        return {}
