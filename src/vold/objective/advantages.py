"""Advantages and rollout weights: from scores and log-probs to numbers without gradient.

One number a rollout is a list; one number a token is an array, and is computed in float64 whatever comes in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from vold.objective.terms import Mask

    Numbers = NDArray[np.float64]


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


def teacher_log_ratio(teacher_logp: ArrayLike, behaviour_logp: ArrayLike) -> Numbers:
    """The reward R_t = log π_T - log π_old of every token, in nats: positive where the teacher likes it better.

    As an advantage at ratio 1 it has the gradient of the k2 loss (method.md section 0).

    Raises:
        ValueError: lengths differ.

    Example:
        >>> teacher_log_ratio([-1.0], [-3.0])
        array([2.])
    """
    teacher, behaviour = _tokens(teacher_logp, behaviour_logp)
    with np.errstate(invalid="ignore"):  # two minus infinities
        return teacher - behaviour


def policy_shift(
    teacher: ArrayLike, reference: ArrayLike, behaviour: ArrayLike | None = None, extrapolation: float | None = None
) -> Numbers:
    """log π_T - log π_ref, what training has made of the teacher (arXiv 2607.05394). With `extrapolation` λ the reward
    whose sum is λ times that, less the KL of the student to the same reference (arXiv 2602.12125):
    λ (log π_T - log π_ref) - (log π_old - log π_ref); 1 is plain on-policy distillation.

    Args: [response] log-probs (nats) of the same tokens.
    """
    shift = teacher_log_ratio(teacher, reference)
    if behaviour is None or extrapolation is None:
        return shift
    return extrapolation * shift - teacher_log_ratio(behaviour, reference)


def future_sums(
    rewards: ArrayLike,
    action_mask: ArrayLike,
    *,
    discount: float = 1.0,
    from_next: bool = False,
    length_normalised: bool = False,
    per: Literal["action", "position"] = "action",
) -> Numbers:
    """Discounted sums over a token's own future, F_t = Σ_{u ≥ t} discount^(u - t) R_u, over action tokens alone.

    MiniLLM (arXiv 2306.08543) credits a token with what follows: `from_next` leaves out R_t itself, whose expectation
    its full-vocabulary term computes exactly (then F_t = Σ_{u > t} discount^(u - t - 1) R_u), and `length_normalised`
    divides by the number of addends. Thinking Machines' optional form is the discounted sum that starts at t, where
    u - t is counted in all tokens of the sequence, not in the model's own alone.

    Args:
        rewards: [response] R_t in nats; values on other tokens are not read.
        action_mask: [response] 1 on the model's own tokens.
        discount: in [0, 1]; 0 gives R_t back.
        from_next: start at the next action token.
        length_normalised: divide by the number of addends, if any.
        per: what the exponent counts, the model's own tokens (`action`) or all tokens (`position`).

    Raises:
        ValueError: lengths differ.

    Example:
        >>> future_sums([1.0, 9.0, 2.0], [1, 0, 1])
        array([3., 0., 2.])
    """
    values, mask = _tokens(rewards, action_mask)
    own = np.flatnonzero(mask)
    counted = own if per == "action" else np.arange(len(values))
    sums, addends = np.where(mask != 0, values, 0.0)[counted], np.arange(len(own), 0, -1)
    reach, factor = 1, discount
    while reach < len(sums):  # sums over `reach` tokens become sums over twice as many
        sums[:-reach] += factor * sums[reach:]
        reach, factor = 2 * reach, factor**2
    if from_next:
        sums, addends = np.append(sums[1:], 0.0)[: len(sums)], addends - 1
    out = np.zeros(len(values))
    out[counted] = sums
    if length_normalised:
        out[own] /= np.maximum(1, addends)
    return np.where(mask != 0, out, 0.0)


def action_runs(action_mask: ArrayLike) -> list[range]:
    """The steps of a response: maximal runs of the model's own tokens. m tool calls leave m + 1 of them.

    Example:
        >>> action_runs([1, 1, 0, 1])
        [range(0, 2), range(3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.asarray(action_mask, bool), prepend=False, append=False)).tolist()
    return [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def step_weights(
    behaviour_logp: ArrayLike,
    teacher_logp: ArrayLike,
    action_mask: ArrayLike,
    *,
    eps: float = 1e-6,
    delta: float = 0.2,
) -> Numbers:
    """SOD's weight of every token (arXiv 2605.07725, Eq. 6 and 7), 0 on tokens that are not the model's own.

    d_k is the mean of |log π_old - log π_T| over step k. The paper's running product telescopes to
    w_k = min((d_1 + eps) / (d_k + eps), 1 + delta), with w_1 = 1: a step on which student and teacher differ more than
    on the first one counts less.

    Args:
        behaviour_logp: [response] log-probs at the time of sampling.
        teacher_logp: [response] the teacher's; a token without a finite one is left out of its step's mean.
        action_mask: [response] 1 on the model's own tokens.
        eps: keeps the quotient finite.
        delta: how far above 1 a weight may go.

    Raises:
        ValueError: lengths differ.
    """
    gaps, _ = _tokens(np.abs(teacher_log_ratio(teacher_logp, behaviour_logp)), action_mask)
    out = np.zeros(len(gaps))
    first: float | None = None
    for run in action_runs(action_mask):
        here = gaps[run.start : run.stop]
        known = here[np.isfinite(here)].tolist()
        weight = 1.0
        if known:
            drift = math.fsum(known) / len(known)
            weight = 1.0 if first is None else min((first + eps) / (drift + eps), 1 + delta)
            first = drift if first is None else first
        out[run.start : run.stop] = weight
    return out


def overlong_penalty(length: int, max_length: int, buffer: int, factor: float = 1.0) -> float:
    """DAPO's soft length penalty (arXiv 2503.14476, Eq. 13), in [-factor, 0].

    0 up to max_length - buffer tokens, then falling linearly to -factor at max_length, and -factor beyond it.

    Example:
        >>> overlong_penalty(90, 100, 20)
        -0.5
    """
    over = length - (max_length - buffer)
    return -factor * min(1.0, max(0.0, over / buffer))


def tool_reward(reward: float, tool_calls: int, *, per_call: float = 0.1, ceiling: float = -0.6) -> float:
    """SOD's bonus for trying tools: a negative reward rises by `per_call` for every call, never above `ceiling`.

    Example:
        >>> tool_reward(-1.0, 2), tool_reward(-1.0, 9), tool_reward(1.0, 2)
        (-0.8, -0.6, 1.0)
    """
    return min(ceiling, reward + per_call * tool_calls) if reward < 0 else reward


def mask_weights(mask: Mask, scores: Sequence[float], groups: Sequence[int]) -> list[float]:
    """M of every rollout; see `vold.objective.terms.Mask`.

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
    if mask == "zero_score":
        return [float(s == 0) for s in scores]
    best: dict[int, float] = {}
    for score, group in zip(scores, groups, strict=True):
        best[group] = max(score, best.get(group, 0.0))
    return [1.0 - best[g] for g in groups]


def _tokens(*arrays: ArrayLike) -> list[Numbers]:
    """The arrays as float64, if they are equally long."""
    found = [np.asarray(a, np.float64) for a in arrays]
    if len({a.shape for a in found}) > 1:
        raise ValueError(f"values of tokens must be equally long, got {[a.shape for a in found]}")
    return found


def _members(scores: Sequence[float], group: Sequence[int]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for i, (_, g) in enumerate(zip(scores, group, strict=True)):
        found.setdefault(g, []).append(i)
    return list(found.values())
