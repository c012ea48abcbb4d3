"""The student as its own teacher: its weights as they are, or a running average of them, in the memory it has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.inprocess import InProcessTeacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import torch

    from vold.model.chat import Chat
    from vold.model.lm_head.teacher_logits import Distributions
    from vold.model.policy import Policy
    from vold.types import Sampler, ScoreRequest, TokenScores


class StudentTeacher(InProcessTeacher):
    """Scores with a student that goes on to learn.

    Args:
        policy: the student.
        within: the weights that it scores with, as a context; those that it has by default.
        temperature, token_budget, probe: as `InProcessTeacher`.
    """

    frozen = False

    def __init__(
        self,
        policy: Policy,
        *,
        within: Callable[[], AbstractContextManager[None]],
        temperature: float,
        token_budget: int,
        probe: ScoreRequest | None = None,
    ) -> None:
        super().__init__(policy, temperature=temperature, token_budget=token_budget, probe=probe)
        self._within = within

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """See `InProcessTeacher`."""
        with self._within():
            return super().score(requests)

    def distributions(self, requests: Sequence[ScoreRequest]) -> Distributions:
        """See `InProcessTeacher`."""
        with self._within():
            return super().distributions(requests)


@dataclass
class StudentBackend:
    """The student in its teacher's place. `within` are the weights that it scores with, see `StudentTeacher`."""

    policy: Policy
    within: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    on_servers = concurrent = False
    served_as = "student"

    @property
    def chat(self) -> Chat:
        """See `TeacherBackend`."""
        return self.policy.chat

    @property
    def modules(self) -> list[torch.nn.Module]:
        """None beside the student."""
        return []

    def sampler(self, rows: int) -> Sampler:
        """See `TeacherBackend`."""
        return InProcessSampler(self.policy, rows)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> StudentTeacher:
        """See `TeacherBackend`."""
        return StudentTeacher(
            self.policy, within=self._now, temperature=temperature, token_budget=token_budget, probe=probe
        )

    def _now(self) -> AbstractContextManager[None]:
        return self.within()

    def context(self) -> int:
        """See `TeacherBackend`."""
        return self.policy.context

    def describe(self) -> str:
        """See `TeacherBackend`."""
        return "the student itself"
