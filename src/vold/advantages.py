"""Advantages and rollout weights: from scores and log-probs to numbers without gradient. Floats in, floats out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.slots import Mask


def group_relative(
    scores: Sequence[float], group: Sequence[int], normalise: Literal["std", "none"] = "std", eps: float = 1e-6
) -> list[float]:
    """GRPO's advantage A_i = (r_i - mean r) / (std r + eps), within the rollouts of one prompt.

    The paper writes `std` without saying which. This is the sample standard deviation (divisor n - 1), as in TRL and
    verl; the population one would make advantages sqrt(n / (n - 1)) larger, 1.118 at n = 5. A group of equal scores,
    and a group of one, gets exactly 0.

    Args:
        scores: [rollouts] outcome rewards.
        group: [rollouts] prompt number of each; members need not be neighbours.
        normalise: "none" leaves out the division.
        eps: added to the standard deviation (the paper's δ, whose value it does not give).

    Raises:
        ValueError: lengths differ.

    Example:
        >>> group_relative([1, 0, 5], [0, 0, 1], "none")
        [0.5, -0.5, 0.0]
    """
    out = [0.0] * len(scores)
    for members in _members(scores, group):
        values = [float(scores[i]) for i in members]
        if max(values) == min(values):
            continue
        mean = math.fsum(values) / len(values)
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        scale = spread + eps if normalise == "std" else 1.0
        for i, value in zip(members, values, strict=True):
            out[i] = (value - mean) / scale
    return out


def leave_one_out(scores: Sequence[float], group: Sequence[int]) -> list[float]:
    """RLOO's advantage: r_i minus the mean score of the OTHER rollouts of its prompt; 0 where all are equal.

    Args and errors: as `group_relative`.

    Example:
        >>> leave_one_out([1, 0, 0], [7, 7, 7])
        [1.0, -0.5, -0.5]
    """
    out = [0.0] * len(scores)
    for members in _members(scores, group):
        values = [float(scores[i]) for i in members]
        if max(values) == min(values):
            continue
        total = math.fsum(values)
        for i, value in zip(members, values, strict=True):
            out[i] = value - (total - value) / (len(values) - 1)
    return out


def teacher_log_ratio(teacher_logp: Sequence[float], behaviour_logp: Sequence[float]) -> list[float]:
    """The reward R_t = log π_T - log π_old of every token, in nats: positive where the teacher likes it better.

    As an advantage at ratio 1 it has the gradient of the k2 loss (method.md section 0).

    Raises:
        ValueError: lengths differ.

    Example:
        >>> teacher_log_ratio([-1.0], [-3.0])
        [2.0]
    """
    return [t - b for t, b in zip(teacher_logp, behaviour_logp, strict=True)]


def mask_weights(mask: Mask, scores: Sequence[float], groups: Sequence[int]) -> list[float]:
    """M of every rollout; see `vold.slots.Mask`.

    Raises:
        DataError: a score outside [0, 1], for which 1 - score is no weight.
    """
    for score in scores:
        if not 0 <= score <= 1:
            raise DataError("a grader's score must lie in [0, 1]", got=str(score), fix="rescale it in the grader")
    if mask == "none":
        return [1.0] * len(scores)
    if mask == "passed":
        return [float(s) for s in scores]
    if mask == "failed":
        return [1.0 - s for s in scores]
    best: dict[int, float] = {}
    for score, group in zip(scores, groups, strict=True):
        best[group] = max(score, best.get(group, 0.0))
    return [1.0 - best[g] for g in groups]


def _members(scores: Sequence[float], group: Sequence[int]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for i, (_, g) in enumerate(zip(scores, group, strict=True)):
        found.setdefault(g, []).append(i)
    return list(found.values())
