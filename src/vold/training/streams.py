"""Per-token values of credited rollouts, as the flat tensors that a loss reads.

`SOURCES` is the one place where a stream of `vold.objective.Streams` is read off a rollout: a loss with a new one adds
a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.objective import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.objective import Objective
    from vold.types import Rollout, Values

SOURCES: dict[str, tuple[Callable[[Rollout], Values | None], float]] = {
    "behaviour_logp": (lambda r: r.completion.logps, np.nan),
    "advantage": (lambda r: r.advantage, 0.0),
    "teacher_logp": (lambda r: None if r.teacher is None else r.teacher.logp, np.nan),
    "teacher_weight": (lambda r: r.teacher_weight, 0.0),
    "live_weight": (lambda r: r.live_weight, 0.0),
    "reference_logp": (lambda r: r.reference_logp, np.nan),
    "old_logp": (lambda r: r.old_logp, np.nan),
}
"""By the name of a stream: its values [response], and what stands where a rollout has none."""
OPTIONAL = {"live_weight", "reference_logp", "old_logp"}
"""Streams that are left out where no token has one, or 0."""
LEARNT_FROM = ("advantage", "live_weight", "teacher_weight")
"""Streams of which one must be other than 0 for a token to teach anything."""


def has_signal(rollout: Rollout, objective: Objective) -> bool:
    """Whether a credited rollout has a token to learn from."""
    if objective.learns_everywhere:
        return True
    values = [SOURCES[name][0](rollout) for name in LEARNT_FROM]
    return any(v is not None and bool(v.any()) for v in values)


def flatten(rollouts: Sequence[Rollout], device: torch.device) -> Streams:
    """Per-token values of some rollouts, action tokens only, rollout after rollout. The log-probs at the time of
    sampling stand for those of the student until `Streams.at` brings them."""
    lengths = np.array([np.count_nonzero(r.completion.action_mask) for r in rollouts], np.int64)
    flat = {"sequence_index": np.repeat(np.arange(len(rollouts)), lengths), "sequence_length": lengths.repeat(lengths)}
    streams = {name: torch.from_numpy(values).to(device, non_blocking=True) for name, values in flat.items()}
    for name, (read, absent) in SOURCES.items():
        values = np.concatenate([_own(r, read(r), absent) for r in rollouts])
        if name not in OPTIONAL or np.nan_to_num(values).any():
            streams[name] = torch.from_numpy(values).to(device, non_blocking=True)
    return Streams(logp=streams["behaviour_logp"], **streams)


def _own(rollout: Rollout, values: Values | None, absent: float) -> Values:
    mask = rollout.completion.action_mask
    return np.full(np.count_nonzero(mask), absent, np.float32) if values is None else values[mask]
