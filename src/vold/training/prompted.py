"""What a step of stage 2 begins with: problems with their prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vold.types import Prompt, Rollout, Task


@dataclass(frozen=True)
class Prompted:
    """A task with its prompts. `teacher_prompt` is None where the teacher has no part: the objective does not use one,
    or the task has no text view. `contrast_prompt` is that of the second score, where the objective asks for one."""

    task: Task
    prompt: Prompt
    teacher_prompt: Prompt | None
    contrast_prompt: Prompt | None = None


@dataclass(frozen=True)
class Step:
    """What a step of stage 2 begins with.

    Attributes:
        number: 0-based.
        seed: of its rollouts.
        prompted: its problems; `Rollout.group` is a place in this list. First those that the student answers, then one
            for each of the traces, then those that may take the place of others.
        traces: rollouts that the teacher has written itself (GKD's mixture).
        spare: how many of the problems are only there to take the place of others.
        ahead: it is sampled so many steps before its turn.
    """

    number: int
    seed: int
    prompted: list[Prompted]
    traces: list[Rollout] = field(default_factory=list)
    spare: int = 0
    ahead: int = 0

    @property
    def version(self) -> int:
        """Of the weights that sample: how many steps' updates they have behind them."""
        return self.number - self.ahead

    @property
    def own(self) -> int:
        """How many of the problems the student answers itself: the first ones."""
        return len(self.prompted) - len(self.traces) - self.spare

    @property
    def teacher_prompts(self) -> list[Prompt | None]:
        """The teacher prompt of each problem."""
        return [p.teacher_prompt for p in self.prompted]

    def of(self, rollouts: Iterable[Rollout]) -> list[Prompted]:
        """The problem of each rollout."""
        return [self.prompted[r.group] for r in rollouts]
