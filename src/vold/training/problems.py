"""The problems of stage 2: which of them a step has, and what student and teacher are shown (stop 1)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from vold.data.sources import open_tasks
from vold.errors import DataError
from vold.run.directory import record_data
from vold.run.order import epoch_indices, seed_of
from vold.training.prompted import Prompted, Step
from vold.training.trace_mixture import TraceMixture, own_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.engines.teachers.teachers import Teachers
    from vold.run.recipe import Distill
    from vold.training.stage import Training
    from vold.types import Rollout, Task


class Problems:
    """All problems of stage 2. Their prompts are made for each step: of a large set they would fill the memory.

    Args:
        run: the stage.
        teachers: make the teacher prompts.

    Raises:
        DataError: no task has a text view, and the objective uses the teacher; the student cannot be shown a picture;
            or the data has changed since the stage began.
    """

    def __init__(self, run: Training[Distill], teachers: Teachers) -> None:
        stage = run.stage
        self.config, self.run_seed = stage.config, stage.recipe.run.seed
        self.tasks = tasks = open_tasks(stage.recipe.tasks, self.config.tasks)
        if stage.group.first:
            record_data(stage.directory, "distill.tasks", tasks.cards)
        self.chat, self.teachers = run.policy.chat, teachers
        self._try_pictures()
        if self.config.objective.uses_teacher and not any(map(teachers.prompt, tasks)):
            raise DataError("no task has a text view, so the teacher can say nothing", where="distill.tasks")
        mixed = self.config.objective.mix is not None
        self.mixture = TraceMixture(stage.recipe, run.policy, teachers.prompt) if mixed else None

    def all_tasks(self) -> Iterator[Task]:
        """All that a teacher may come to be asked about: the problems, and those of the traces in a mixture."""
        yield from self.tasks
        if self.mixture is not None:
            yield from (trace.task for trace in self.mixture.traces)

    def step(self, number: int, ahead: int = 0) -> Step:
        """The problems of a step: a function of seed and number alone. They are answered so many steps before."""
        own, seed = own_prompts(self.config), seed_of(self.run_seed, "prompts")
        chosen = epoch_indices(len(self.tasks), own, seed, number)
        prompted = [self._prompted(i) for i in chosen]
        traces: list[Rollout] = []
        if self.mixture is not None:
            mixed, traces = self.mixture.step(self.config, number, len(prompted))
            prompted += mixed
        spare = self._spare(number, chosen)
        seed = seed_of(self.run_seed, "rollouts", number)
        return Step(number, seed, prompted + spare, traces, len(spare), ahead)

    def _spare(self, number: int, chosen: Sequence[int]) -> list[Prompted]:
        """Other problems in an order of their own, as many as a step can come to need: that of the epochs stays."""
        if self.config.refill is None:
            return []
        count, most = len(self.tasks), self.config.refill * len(chosen)
        rng = random.Random(seed_of(self.run_seed, "refill", number))
        drawn = rng.sample(range(count), min(count, most + len(chosen)))
        return [self._prompted(i) for i in [i for i in drawn if i not in chosen][:most]]

    def _prompted(self, place: int) -> Prompted:
        task, contrast = self.tasks[place], self.teachers.contrast
        again = contrast.prompt(task) if contrast is not None else None
        return Prompted(task, self.chat.prompt(task.messages, task.id), self.teachers.prompt(task), again)

    def _try_pictures(self) -> None:
        """A picture that cannot be shown ends the run before its first step, not at the step that draws it."""
        for task in self.tasks:
            if any(message.images for message in task.messages):
                self.chat.prompt(task.messages, task.id)
