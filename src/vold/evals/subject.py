"""What `vold check` looks at: a recipe, and the models and data that it names, loaded when they are first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vold.data.sources import open_tasks
from vold.engines.teachers.teachers import no_teachers, open_teachers
from vold.model.loading import load_student
from vold.run.looks import asked_while_training

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.data.sources import Tasks
    from vold.engines.teachers.teachers import Teachers
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe
    from vold.run.task_sections import TaskSpec
    from vold.types import Prompt

PROMPTS = 64
"""So many prompts of a task set are measured."""


@dataclass(frozen=True)
class Finding:
    """One line of the check: what was looked at, how it was found, and whether it is to be thought over."""

    what: str
    how: str
    warns: bool = False


@dataclass(frozen=True)
class TaskSet:
    """The tasks of one section, opened when they are first asked for. `key` names the set `name` of `sets`."""

    key: str
    name: str
    sets: Mapping[str, TaskSpec]
    max_new_tokens: int
    subject: Subject

    @property
    def graded(self) -> bool:
        """Whether references are graded at start-up. Those of traces are not: the teacher answers these tasks."""
        return self.key != "traces.tasks"

    @property
    def trained(self) -> bool:
        """Whether a stage learns from it."""
        return self.key in ("traces.tasks", "distill.tasks")

    @cached_property
    def tasks(self) -> Tasks:
        """All of them."""
        return open_tasks(self.sets, self.name, references=self.graded)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Of the first tasks, as the student is asked."""
        return [self.subject.student.chat.prompt(t.messages, t.id) for t in self.tasks[:PROMPTS]]

    @cached_property
    def told(self) -> list[Prompt]:
        """Of the same tasks, as teachers are asked that are told more than the student."""
        teachers = self.subject.teachers
        asked = self.tasks[:PROMPTS] if self.trained else []
        more = [t for t in asked if teachers.by_route and teachers.of(t).tells]
        return [prompt for t in more if (prompt := teachers.prompt(t)) is not None]


@dataclass(frozen=True)
class Subject:
    """A recipe and what it names; models and tasks are loaded when a check first asks for them."""

    recipe: Recipe

    @cached_property
    def student(self) -> Policy:
        """The student as training would start with it."""
        return load_student(self.recipe, anew=True)

    @cached_property
    def teachers(self) -> Teachers:
        """All teachers that the recipe names, where it has anybody to teach."""
        taught = self.recipe.teacher is not None and self.recipe.uses_student
        return open_teachers(self.recipe, self.student, contrast=True) if taught else no_teachers()

    @cached_property
    def context(self) -> int:
        """The least context length of all models, in tokens. A teacher whose length is unknown does not count, nor one
        whose servers are still to be started."""
        lengths = (t.backend.context() for t in self.teachers.by_route.values() if not t.launched)
        return min([self.student.context, *filter(None, lengths)])

    @cached_property
    def task_sets(self) -> list[TaskSet]:
        """Those of the stages, then those of the evaluation."""
        r = self.recipe
        named = [(f"{name}.tasks", s.tasks, s.sampling) for name, s in r.stages_with_tasks.items()]
        if r.eval is not None:
            named += [(f"eval.tasks: {name}", name, r.eval.sampling) for name in r.eval.tasks]
        for stage, name in r.asked_while_training:
            during = getattr(r, stage).eval
            named.append((f"{stage}.eval: {name}", name, asked_while_training(r, during)[0]))
        room = [s.max_new_tokens if s is not None else 0 for _, _, s in named]
        return [TaskSet(key, name, r.tasks, n, self) for (key, name, _), n in zip(named, room, strict=True)]
