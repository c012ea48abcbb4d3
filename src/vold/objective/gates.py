"""Weights and masks of published methods, written as a recipe's own functions are: presets name them, and so can you.

Weights W are numbers a token (`vold.objective.custom.TokenWeight`), masks M numbers a rollout
(`vold.objective.custom.RolloutMask`). Their options are the recipe's `weight_options` and `mask_options`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vold.objective.advantages import policy_shift, teacher_log_ratio
from vold.objective.unscored import asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.objective.advantages import Numbers
    from vold.types import Rollout


def prefix_drift(rollouts: Sequence[Rollout], *, gamma: float = 0.5) -> list[Numbers]:
    """IW-OPD's importance weight (arXiv 2606.22600): w_t = 1 + gamma (1 - D_t / D), where D_t adds up
    |log π_T - log π_old| of the tokens before t and D that of the whole rollout. From 1 + gamma at the first token it
    falls towards 1, fastest where the models are apart; on a rollout where they agree it stays.
    """
    out = []
    for r in rollouts:
        apart = np.zeros(len(r.completion.ids))
        if r.teacher is not None:
            gaps = np.abs(teacher_log_ratio(r.teacher.logp, r.completion.logps))
            apart = np.where(asked(r) & np.isfinite(gaps), gaps, 0.0)
        before = np.cumsum(apart) - apart
        out.append(1 + gamma * (1 - before / max(float(apart.sum()), 1e-8)))
    return out


def sign_gate(rollouts: Sequence[Rollout], *, agree: float = 1.25, differ: float = 0.75) -> list[Numbers]:
    """In the style of SG-OPD's gate (arXiv 2606.09304): `agree` on tokens where the teacher likes what the verifier
    likes, a token of a passed rollout more than the student does or one of a failed rollout less; `differ` elsewhere.
    """
    out = []
    for r in rollouts:
        weights = np.full(len(r.completion.ids), differ)
        if r.teacher is not None:
            gaps = teacher_log_ratio(r.teacher.logp, r.completion.logps)
            weights[gaps * (1 if r.grade.score >= 1 else -1) > 0] = agree
        out.append(weights)
    return out


def visual_advantage(
    rollouts: Sequence[Rollout], *, share: float = 0.2, high: float = 0.5, temperature: float = 1.0
) -> list[Numbers]:
    """VA-OPD's weights (arXiv 2605.21924, Eq. 2 to 6, as its released code computes them), for `sequence_mean`.

    VA_t = max(0, log π_T with the picture - log π_T without), over a rollout's own tokens. The `share` of them with the
    highest VA (rounded up, earlier ones first) has `high` of the rollout's weight together, the others the rest. The
    rollout's own weight is a softmax over its group of the standardised mean VA (population deviation), at
    `temperature`, times the size of the group.
    """
    means = []
    advantages = []
    for r in rollouts:
        own, seen = r.completion.action_mask, np.zeros(len(r.completion.ids))
        if r.teacher is not None and r.contrast_logp is not None:
            gaps = policy_shift(r.teacher.logp, r.contrast_logp)
            seen = np.where(own & np.isfinite(gaps), np.maximum(gaps, 0.0), 0.0)
        advantages.append(seen)
        means.append(float(seen.sum()) / max(1, int(own.sum())))
    of_rollouts = _softmax_in_groups(means, [r.group for r in rollouts], temperature)
    return [_parted(r, seen, share, high) * w for r, seen, w in zip(rollouts, advantages, of_rollouts, strict=True)]


def tag_at_least(rollouts: Sequence[Rollout], *, tag: str, value: float) -> list[float]:
    """1 for rollouts whose task's `tag` is a number of at least `value`, else 0; 0 without the tag. TGOPD's gate
    (arXiv 2609.02998) where the tag says how many answers of the teacher's own were right."""
    return [float(_number(r.tags.get(tag)) >= value) for r in rollouts]


def tag_below(rollouts: Sequence[Rollout], *, tag: str, value: float) -> list[float]:
    """1 where `tag_at_least` is 0, and 0 where it is 1."""
    return [1 - one for one in tag_at_least(rollouts, tag=tag, value=value)]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _softmax_in_groups(means: Sequence[float], groups: Sequence[int], temperature: float) -> list[float]:
    """Weights of rollouts, 1 on average within each group."""
    out = [0.0] * len(means)
    for group in dict.fromkeys(groups):
        places = [i for i, g in enumerate(groups) if g == group]
        values = np.array([means[i] for i in places])
        powers = np.exp((values - values.mean()) / (values.std() + 1e-6) / temperature)
        for i, power in zip(places, powers / powers.sum(), strict=True):
            out[i] = float(power) * len(places)
    return out


def _parted(rollout: Rollout, seen: Numbers, share: float, high: float) -> Numbers:
    """Weights whose mean over a rollout's own tokens is 1, `high` of it on the tokens of the highest VA."""
    weights, own = np.zeros(len(seen)), np.flatnonzero(rollout.completion.action_mask)
    count = max(1, math.ceil(share * len(own)))
    order = own[np.argsort(-seen[own], kind="stable")]
    top, rest = order[:count], order[count:]
    weights[top] = len(own) * (high if len(rest) else 1.0) / len(top) if len(top) else 0.0
    weights[rest] = len(own) * (1 - high) / max(1, len(rest))
    return weights
