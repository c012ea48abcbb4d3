"""Per-token values of credited rollouts, as the flat tensors that a loss reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.objective import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.types import Rollout


def has_signal(r: Rollout) -> bool:
    """Whether a credited rollout has a token to learn from."""
    return any(any(v or ()) for v in (r.advantage, r.live_weight, r.teacher_weight))


def flatten(rollouts: Sequence[Rollout], part: Sequence[int], device: torch.device) -> Streams:
    """Per-token values of some rollouts, action tokens only, rollout after rollout. The log-probs at the time of
    sampling stand for those of the student until `Streams.at` brings them."""
    behaviour, advantage, live, teacher, weight, index, length = [], [], [], [], [], [], []
    for i in part:
        r = rollouts[i]
        actions = [t for t, a in enumerate(r.completion.action_mask) if a]
        behaviour += [r.completion.logps[t] for t in actions]
        advantage += [r.advantage[t] if r.advantage else 0.0 for t in actions]
        teacher += [r.teacher.logp[t] if r.teacher is not None else float("nan") for t in actions]
        live += [r.live_weight[t] if r.live_weight else 0.0 for t in actions]
        weight += [r.teacher_weight[t] if r.teacher_weight else 0.0 for t in actions]
        index += [i] * len(actions)
        length += [len(actions)] * len(actions)
    sampled = torch.tensor(behaviour, device=device)
    return Streams(
        logp=sampled,
        behaviour_logp=sampled,
        advantage=torch.tensor(advantage, device=device),
        teacher_logp=torch.tensor(teacher, device=device),
        teacher_weight=torch.tensor(weight, device=device),
        sequence_index=torch.tensor(index, device=device),
        sequence_length=torch.tensor(length, device=device),
        live_weight=torch.tensor(live, device=device) if any(live) else None,
    )
