"""How far the engine that sampled a response is from the model that learns from it.

Two programs never compute quite the same log-probs. Where they differ much, rollouts come from another policy than the
one that is trained, and the objective's ratios correct for an engine, not for learning.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from vold.errors import TrainingError

Action = Literal["auto", "warn", "stop"]
STOP_ABOVE = 0.1
"""Nats per token. Two precisions of one model are some thousandths apart; log-probs of another temperature, of an
unchanged server, or none at all (zeros) are several tenths apart and more."""


def distance(trainer: torch.Tensor, sampler: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """What `Mismatch` sums up, on the trainer's device: how many tokens, the largest |x|, and the sums of |x|, of x and
    of exp(x) - 1 - x.

    Args:
        trainer: [tokens] log-probs.
        sampler: [tokens] the same of the engine.
        counted: [tokens] bool, which tokens count; all by default.

    Returns:
        [5] float64; zeros where no token counts.
    """
    if not len(trainer):
        return trainer.new_zeros(5, dtype=torch.float64)
    x = trainer.detach().double() - sampler.to(trainer.device, non_blocking=True).double()
    counted = torch.ones_like(x, dtype=torch.bool) if counted is None else counted
    x = x.where(counted, 0.0)
    return torch.stack([counted.sum().double(), x.abs().max(), x.abs().sum(), x.sum(), (x.exp() - 1 - x).sum()])


def beyond(value: float, limit: float, action: Action, stop_above: float) -> Literal["", "warn", "stop"]:
    """What is to be done about a distance in nats: nothing up to `limit`, and beyond it what `action` says; "auto" goes
    on up to `stop_above`. With one that is not finite nobody goes on.

    Example:
        >>> [beyond(x, 0.1, "auto", 0.5) for x in (0.1, 0.2, 0.6)]
        ['', 'warn', 'stop']
    """
    if value <= limit:
        return ""
    goes_on = math.isfinite(value) and (action == "warn" or (action == "auto" and value <= stop_above))
    return "warn" if goes_on else "stop"


class Mismatch:
    """Sums over the tokens of one step, x = log pi_trainer - log pi_sampler on sampled tokens, before the update."""

    def __init__(self) -> None:
        self.tokens, self.largest, self._absolute, self._k1, self._k3 = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, trainer: torch.Tensor, sampler: torch.Tensor) -> None:
        """Count some tokens; both [tokens] log-probs (nats) at the sampling temperature, on any device."""
        self.add_distance(*distance(trainer, sampler).tolist())

    def add_distance(self, tokens: float, largest: float, absolute: float, signed: float, k3: float) -> None:
        """Count some tokens by the numbers that `distance` found."""
        self.tokens += int(tokens)
        self.largest = max(self.largest, largest)
        self._absolute += absolute
        self._k1 -= signed
        self._k3 += k3

    def merge(self, other: Mismatch) -> None:
        """Count another process's tokens too."""
        self.tokens += other.tokens
        self.largest = max(self.largest, other.largest)
        self._absolute += other._absolute
        self._k1 += other._k1
        self._k3 += other._k3

    @property
    def kl(self) -> float:
        """KL(sampler || trainer), nats per token, by the estimator k3: mean of exp(x) - 1 - x (Schulman 2020)."""
        return self._k3 / max(self.tokens, 1)

    def row(self) -> dict[str, float]:
        """`mismatch`: largest |x|; `mismatch_mean`: mean |x|; `mismatch_k1`, `mismatch_kl`: KL by -x and by k3."""
        n = max(self.tokens, 1)
        return {
            "mismatch": self.largest,
            "mismatch_mean": self._absolute / n,
            "mismatch_k1": self._k1 / n,
            "mismatch_kl": self.kl,
        }

    def over(self, limit: float, action: Action, *, step: int) -> str:
        """A warning where `kl` is above `limit` and the run goes on; "" where all is well.

        Raises:
            TrainingError: `kl` is above `limit` and `action` is "stop", or above `STOP_ABOVE` too and it is "auto", or
                not finite.
        """
        verdict = beyond(self.kl, limit, action, STOP_ABOVE)
        if not verdict:
            return ""
        got = (
            f"KL(sampler || trainer) {self.kl:.2g} nats per token at step {step}, the limit is {limit:.2g}; "
            f"mean |log ratio| {self._absolute / self.tokens:.2g}, largest {self.largest:.2g}"
        )
        if verdict == "warn":
            return got
        raise TrainingError(
            "rollouts come from another policy than the one that is trained",
            where="distill.mismatch",
            got=got,
            fix="give the server --logprobs-mode processed_logprobs and the student's precision, or, if they are meant "
            "to be that far apart, raise `limit` or set `action: warn`",
        )
