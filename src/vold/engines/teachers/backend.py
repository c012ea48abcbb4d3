"""Where a teacher runs, behind one protocol, and the module that opens it there.

A further place to run teachers is a module of this folder with `open_backend`, and its key in
`vold.run.teacher_sections.ScoringModel`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from vold.types import Teacher

if TYPE_CHECKING:
    import torch

    from vold.model.chat import Chat
    from vold.run.recipe import Recipe
    from vold.run.teacher_sections import ScoringModel
    from vold.types import Sampler, ScoreRequest, TokenScores


class ProbedTeacher(Teacher, Protocol):
    """A teacher that was opened with a probe."""

    @property
    def known(self) -> TokenScores:
        """What it says of the probe."""
        ...


class TeacherBackend(Protocol):
    """A frozen teacher, wherever it runs."""

    @property
    def chat(self) -> Chat:
        """Its tokenizer and chat template."""
        ...

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Its models in this process, which can be moved between a device and the host; none on servers."""
        ...

    @property
    def on_servers(self) -> bool:
        """Whether it can be restarted, or exchanged, behind this process's back."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether it can score while the student samples, without taking anything from this process."""
        ...

    @property
    def served_as(self) -> str:
        """What decides its scores beside path and temperature: precision, or name on its servers. Part of the key of
        cached scores."""
        ...

    def sampler(self, rows: int) -> Sampler:
        """A sampler of its own answers, `rows` side by side where it runs in this process."""
        ...

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> ProbedTeacher:
        """What scores requests in its own ids.

        Args:
            probe: tells whether it is alive and the same (`vold.engines.teachers.health`).
            temperature: of the rollouts; teacher and student are compared at the same one.
            token_budget: padded tokens per forward pass in this process.
        """
        ...

    def context(self) -> int:
        """Tokens that prompt and response may have together; 0 where a server does not say."""
        ...

    def describe(self) -> str:
        """What it is and where it runs, in words."""
        ...


def open_backend(recipe: Recipe, spec: ScoringModel) -> TeacherBackend:
    """Load a teacher, or find its servers: `open_backend` of the module that `spec.place` names.

    Raises:
        CheckpointError: its directory is missing or not whole.
        TeacherError: a server does not answer, or holds another model.
    """
    backend: TeacherBackend = importlib.import_module(f"vold.engines.teachers.{spec.place}").open_backend(recipe, spec)
    return backend
