"""A running average of the student's weights, for a student that is taught by what it was on average.

It is part of the optimizer's state, so that a state of the run holds it as it holds moments.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.model.policy import Policy

NAME = "average"
"""What it is called in the optimizer's state of a parameter."""


class RunningAverage:
    """The average of each trained parameter, in float32: average <- (1 - rate) average + rate weight, after every step
    that has changed the weights. Before the first it is the weights themselves.

    Args:
        policy: the student, with the weights that it goes on from.
        optimizer: over them; it has the average already where a run goes on.
        rate: see above.
    """

    def __init__(self, policy: Policy, optimizer: torch.optim.Optimizer, rate: float) -> None:
        self.parameters, self.optimizer, self.rate = [p for _, p in policy.trainable()], optimizer, rate
        state = optimizer.state
        self._begun = {p: p.detach().float().clone() for p in self.parameters if NAME not in state.get(p, {})}

    def follow(self) -> None:
        """Take the weights in that an update has just made. A parameter that has never had a gradient stays as it is,
        and so does its average."""
        for p in self.parameters:
            state = self.optimizer.state.get(p)
            if not state:
                continue
            if NAME not in state:
                state[NAME] = self._begun.pop(p)
            state[NAME].lerp_(state.get("master", p.detach()).float(), self.rate)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The student has the average's weights inside, and its own again afterwards, bit for bit."""
        own = [p.detach().clone() for p in self.parameters]
        self._put([self._of(p) for p in self.parameters])
        try:
            yield
        finally:
            self._put(own)

    def _of(self, p: torch.nn.Parameter) -> torch.Tensor:
        found: torch.Tensor | None = self.optimizer.state.get(p, {}).get(NAME)
        return self._begun[p] if found is None else found

    @torch.no_grad()
    def _put(self, weights: list[torch.Tensor]) -> None:
        for p, weight in zip(self.parameters, weights, strict=True):
            p.copy_(weight)
