"""Uni-OPD's use of the verdict: which rollouts take part, and by how much teacher rewards move (arXiv 2605.03677).

A rollout is correct if its score is 1. G is the mean teacher reward R_t = log π_T - log π_old over its own tokens.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Scope = Literal["group", "global"]
"""What is compared: the rollouts of one prompt, or all of the step."""
Direction = Literal["both", "correct_up", "incorrect_down"]
"""Who is moved: correct and incorrect rollouts by half each, or one side by all."""
Statistic = Literal["mean", "minmax"]
"""The gap between classes. `mean`: of mean returns. `minmax`: lowest correct minus highest incorrect, the paper's m."""
KEPT_SHARE = 0.25
"""The greedy mask never takes a class below this share of its size."""


def balance(
    scores: Sequence[float],
    groups: Sequence[int],
    *,
    ratio: float | Literal["correct_only"] = 1.0,
    scope: Scope = "group",
    seed: int = 0,
) -> list[float]:
    """Online correctness-aware balancing: 1 for a rollout that stays, 0 for one that is dropped at random.

    With n_c correct and n_i incorrect rollouts, floor(n_i · ratio) correct and floor(n_c / ratio) incorrect ones may
    stay; where that is none of a class, all of it stay, as in the released code. A scope with one class alone is left
    as it is (there, ratios of 0 and `correct_only` empty it). Which ones go depends on seed, scope and place alone.

    Args:
        scores: [rollouts] outcome rewards.
        groups: [rollouts] prompt number of each.
        ratio: correct to incorrect; 0 keeps the incorrect alone.
        scope: balance each prompt's rollouts, or those of the step.
        seed: of the random choice.
    """
    keep = [1.0] * len(scores)
    for key, members in scopes(groups, scope).items():
        right, wrong = _classes(scores, members)
        if not right or not wrong:
            continue
        rng = random.Random(f"balance/{seed}/{key}")
        if ratio == "correct_only":
            allowed = {"right": len(right), "wrong": 0}
        else:
            # quotients such as 3 / 0.3 must not lose a whole one to rounding
            most = len(wrong) if ratio == 0 else math.floor(len(right) / ratio + 1e-9) or len(wrong)
            least = 0 if ratio == 0 else math.floor(len(wrong) * ratio + 1e-9) or len(right)
            allowed = {"right": least, "wrong": most}
        for name, side in (("right", right), ("wrong", wrong)):
            for i in rng.sample(side, max(0, len(side) - allowed[name])):
                keep[i] = 0.0
    return keep


def margin_shift(
    returns: Sequence[float],
    scores: Sequence[float],
    groups: Sequence[int],
    *,
    delta: float = 0.4,
    scope: Scope = "group",
    statistic: Statistic = "mean",
    direction: Direction = "both",
) -> list[float]:
    """What is added to the teacher reward of every token of a rollout (Eq. 11 and 12): the least that restores a
    margin of `delta` nats between correct and incorrect rollouts; 0 where it is there, and for a class alone.

    Args:
        returns: [rollouts] G of each, in nats.
        scores: [rollouts] outcome rewards.
        groups: [rollouts] prompt number of each.
        delta: the margin wanted.
        scope: what is compared.
        statistic: how the gap is measured.
        direction: who is moved.
    """
    shift = [0.0] * len(returns)
    for members in scopes(groups, scope).values():
        right, wrong = _classes(scores, members)
        if not right or not wrong:
            continue
        missing = delta - _gap(returns, right, wrong, statistic)
        if missing <= 0:
            continue
        up = {"both": missing / 2, "correct_up": missing, "incorrect_down": 0.0}[direction]
        for i in right:
            shift[i] = up
        for i in wrong:
            shift[i] = up - missing
    return shift


def margin_mask(
    returns: Sequence[float],
    scores: Sequence[float],
    groups: Sequence[int],
    *,
    delta: float = 0.4,
    scope: Scope = "group",
    statistic: Statistic = "mean",
) -> list[float]:
    """The greedy alternative to the shift: 1 for a rollout that stays, 0 for one whose advantages are dropped.

    As long as the gap is below `delta`, the correct rollout with the lowest return or the incorrect one with the
    highest goes, whichever widens the gap more. It ends when neither does, and takes no class below a quarter of
    its size, rounded down, or below one.

    Args: as `margin_shift`.
    """
    keep = [1.0] * len(returns)
    for members in scopes(groups, scope).values():
        right, wrong = _classes(scores, members)
        if not right or not wrong:
            continue
        right.sort(key=lambda i: returns[i])
        wrong.sort(key=lambda i: -returns[i])
        least_right, least_wrong = (max(1, math.floor(KEPT_SHARE * len(side))) for side in (right, wrong))
        gap = _gap(returns, right, wrong, statistic)
        while gap < delta:
            choices = []
            if len(right) > least_right:
                choices.append((_gap(returns, right[1:], wrong, statistic), right))
            if len(wrong) > least_wrong:
                choices.append((_gap(returns, right, wrong[1:], statistic), wrong))
            best, side = max(choices, key=lambda c: c[0], default=(gap, right))
            if best <= gap:
                break
            keep[side.pop(0)], gap = 0.0, best
    return keep


def scopes(groups: Sequence[int], scope: Scope) -> dict[int, list[int]]:
    """Indices of the rollouts that are compared with each other."""
    found: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        found.setdefault(group if scope == "group" else 0, []).append(i)
    return found


def _classes(scores: Sequence[float], members: Sequence[int]) -> tuple[list[int], list[int]]:
    return [i for i in members if scores[i] >= 1], [i for i in members if scores[i] < 1]


def _gap(returns: Sequence[float], right: Sequence[int], wrong: Sequence[int], statistic: Statistic) -> float:
    high, low = [returns[i] for i in right], [returns[i] for i in wrong]
    if statistic == "minmax":
        return min(high) - max(low)
    return math.fsum(high) / len(high) - math.fsum(low) / len(low)
