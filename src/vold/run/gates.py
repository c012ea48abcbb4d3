"""Sections that say how far apart two models may be that should be one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vold.run.section import Section


class MismatchGate(Section):
    """What to do where the engine that samples and the model that learns give other log-probs to the same tokens."""

    limit: float = Field(0.01, gt=0)
    """Highest KL(sampler || trainer) in nats per token, measured before each update."""
    action: Literal["auto", "warn", "stop"] = "auto"
    """What happens above it. `stop` saves the state and stops before the update; `warn` goes on; `auto` goes on up to
    0.1 nats and stops above."""


class QuantizeGate(Section):
    """What to do where a quantised teacher gives other log-probs than the weights it was made from."""

    limit: float = Field(0.1, gt=0)
    """Highest mean distance of the two in nats per token, over responses of the run's first step."""
    action: Literal["auto", "warn", "stop"] = "auto"
    """What happens above it. `stop` stops before the update; `warn` goes on; `auto` goes on up to 0.5 nats and stops
    above."""
