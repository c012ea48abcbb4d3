"""One GPU for student, optimizer and teacher in turns: who has nothing to do in a phase waits in the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.model.parallel import Processes
    from vold.run.recipe import Recipe

HOST = torch.device("cpu")

Phase = Literal["sample", "teacher", "update"]
"""The student generates; the teacher scores; the student learns."""


class TimeShare:
    """Moves teachers and optimizer state between a device and the host as the phases of a step change.

    Numbers are copied, never recomputed, so training is bit for bit that of a run without it. The student's weights
    stay: every phase but the teacher's needs them.

    Args:
        offload: whether anything is moved at all.
        optimizer: its state (moments, float32 copies of weights) is on the device for the update alone.
        teachers: models on the device while the teacher scores.
        device: where all of them work.
        late: whether the teacher is asked again in the update, for whole distributions.
    """

    def __init__(
        self,
        offload: bool,
        optimizer: torch.optim.Optimizer,
        teachers: Sequence[torch.nn.Module],
        device: torch.device,
        *,
        late: bool,
    ) -> None:
        self.offload, self.optimizer, self.teachers, self.device, self.late = offload, optimizer, teachers, device, late
        self._moments_here = self._teachers_here = True

    def enter(self, phase: Phase) -> None:
        """Bring what a phase needs to the device, after what it does not need has left."""
        if not self.offload:
            return
        moments = phase == "update"
        teachers = phase == "teacher" or (moments and self.late)
        # What leaves goes first: there may be no room for both.
        for here in (False, True):
            if teachers is here and self._teachers_here is not here:
                self._teachers_here = here
                for tensor in self._weights():
                    tensor.data = self._moved(tensor.data, here)
            if moments is here and self._moments_here is not here:
                self._moments_here = here
                self._move_moments(here)

    def _move_moments(self, here: bool) -> None:
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    state[name] = self._moved(value, here)

    def _weights(self) -> Iterator[torch.Tensor]:
        for teacher in self.teachers:
            yield from teacher.parameters()
            yield from teacher.buffers()

    def _moved(self, tensor: torch.Tensor, here: bool) -> torch.Tensor:
        return tensor.to(self.device if here else HOST, copy=True)


def refuse_offload(recipe: Recipe, group: Processes) -> None:
    """Refuse to offload what several processes divide.

    Raises:
        ConfigError: several processes train.
    """
    if group.world > 1 and recipe.run.offload:
        raise ConfigError(
            "only one process can offload",
            where="run.offload",
            got=f"{group.world} processes",
            fix="drop it: several processes divide the optimizer's state among them",
        )
