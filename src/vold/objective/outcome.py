"""The verifier's verdict on the rollouts of a step as advantages, one number a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.objective.advantages import action_runs, group_relative, leave_one_out, overlong_penalty, tool_reward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.objective.terms import OutcomeAdvantage
    from vold.types import Rollout


def outcome_rewards(term: OutcomeAdvantage, rollouts: Sequence[Rollout], max_new_tokens: int) -> list[float]:
    """The reward of each rollout: its score, or that with a bonus for tools and a penalty for length."""
    rewards = []
    for r in rollouts:
        completion, score = r.completion, r.grade.score
        reward = 2 * score - 1 if term.signed else score
        if term.tool_reward is not None:
            calls = max(0, len(action_runs(completion.action_mask)) - 1)
            reward = tool_reward(reward, calls, per_call=term.tool_reward.per_call, ceiling=term.tool_reward.ceiling)
        if term.overlong is not None:
            buffer = max(1, round(term.overlong.buffer * max_new_tokens))
            reward += overlong_penalty(len(completion.ids), max_new_tokens, buffer, term.overlong.factor)
        rewards.append(reward)
    return rewards


def outcome_advantages(term: OutcomeAdvantage, rewards: Sequence[float], groups: Sequence[int]) -> list[float]:
    """The advantage of each rollout within its group, before its weight and mask."""
    if term.constant is not None:
        return [term.constant] * len(rewards)
    if term.normalise == "leave_one_out":
        return leave_one_out(rewards, groups)
    return group_relative(rewards, groups, term.normalise, term.eps)
