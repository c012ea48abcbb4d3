"""Log-probs over the ids that a truncated sampler kept: what was sampled from is what learns.

At every token q(v) = π(v) / Σ_{u ∈ S} π(u) for v in the kept set S, and 0 elsewhere. S is recorded with the token, so
that sampler and trainer agree on it, and stays as it is while the weights move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.model.lm_head.teacher_logits import ABSENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.lm_head.fused import HeadOutput
    from vold.types import Completion, Ids


def support_of(completions: Sequence[Completion], device: torch.device) -> torch.Tensor | None:
    """[tokens, k] int64, the kept ids at every token of the model's own, -1 where there are fewer; None where nothing
    was cut off."""
    kept = [c.support_ids[c.action_mask] for c in completions if c.support_ids is not None]
    if not kept:
        return None
    return torch.from_numpy(joined(kept)).to(device, torch.int64, non_blocking=True)


def joined(kept: Sequence[Ids]) -> Ids:
    """Rows of several responses after each other, as wide as the widest."""
    width = max(rows.shape[1] for rows in kept)
    wide = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in kept]
    return np.concatenate(wide).astype(np.int32)


def narrowed(output: HeadOutput) -> HeadOutput:
    """What was read at the kept ids (`candidates`), as log-probs and entropy of the distribution over them, both with
    gradient."""
    assert output.candidates is not None
    there = output.candidates > ABSENT
    mass = output.candidates.logsumexp(-1)
    q = (output.candidates - mass[:, None]).where(there, 0.0)
    entropy = -(q.exp() * q).sum(-1)  # 1 · 0 of an id that is not there
    return output._replace(logp=output.logp - mass, entropy=entropy)
