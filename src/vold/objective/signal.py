"""Which groups of rollouts an objective can learn from, before the teacher has been asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.objective.credit import credit, needs_teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.objective.spec import Objective
    from vold.types import Rollout


def groups_that_teach(
    objective: Objective, rollouts: Sequence[Rollout], step: int, teachable: Sequence[bool], max_new_tokens: int
) -> set[int]:
    """The groups of which some rollout has an outcome advantage, or is one that a teacher term speaks about.

    So a group that all passed or all failed teaches nothing by its outcome, and one that all failed teaches through a
    teacher whose mask has failed rollouts. What teaches at any token (reference, entropy, a loss of the user's own)
    makes no difference between groups and does not count.

    Args:
        objective: what is optimised.
        rollouts: graded; those of one prompt all together.
        step: 0-based; a teacher term whose coefficient is 0 there says nothing.
        teachable: [rollouts] whether the teacher can be asked.
        max_new_tokens: the token budget, which `overlong` refers to.

    Raises:
        DataError, TrainingError: as `needs_teacher`.
    """
    said = {"teacher_advantage": objective.teacher_advantage, "teacher_loss": objective.teacher_loss}
    silent = {name: None for name, term in said.items() if term is not None and term.at(step) == 0}
    asked = needs_teacher(objective.model_copy(update={**silent, "own_loss": None}), rollouts)
    verdict = objective.model_copy(update=dict.fromkeys((*said, "reference")))
    credited = credit(verdict, rollouts, step, max_new_tokens=max_new_tokens)
    told = [r.advantage is not None and bool(r.advantage.any()) for r in credited]
    return {r.group for r, a, ok, t in zip(rollouts, asked, teachable, told, strict=True) if t or (a and ok)}
