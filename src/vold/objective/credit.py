"""Who the teacher is asked about, and what every token of a rollout is credited with."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, cast

from vold.errors import AlignmentError
from vold.objective.advantages import (
    action_runs,
    future_sums,
    group_relative,
    leave_one_out,
    mask_weights,
    overlong_penalty,
    step_weights,
    teacher_log_ratio,
    tool_reward,
)
from vold.objective.custom import call_mask, call_weight, is_function
from vold.objective.prefix_teach import downward_change, segment_spans, top_k_margin
from vold.objective.uni_opd import balance, margin_mask, margin_shift

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.objective.options import Margin, Prefix
    from vold.objective.spec import Objective
    from vold.objective.terms import Mask, OutcomeAdvantage, TeacherAdvantage, TeacherLoss
    from vold.types import Rollout, TokenScores

    Pieces = Callable[[Sequence[int]], list[str]]


def needs_teacher(objective: Objective, rollouts: Sequence[Rollout]) -> list[bool]:
    """Which rollouts the teacher must score: those some slot's mask gives a weight other than 0. Of their tokens, only
    the model's own (action mask 1) are read.

    Raises:
        DataError: a score outside [0, 1].
        TrainingError: a mask of the user's own failed.
    """
    wanted = [False] * len(rollouts)
    for slot in (objective.teacher_advantage, objective.teacher_loss):
        if slot is not None:
            wanted = [w or m != 0 for w, m in zip(wanted, _mask(slot, rollouts), strict=True)]
    return wanted


def credit(
    objective: Objective,
    rollouts: Sequence[Rollout],
    step: int,
    *,
    seed: int = 0,
    max_new_tokens: int = 0,
    pieces: Pieces | None = None,
) -> list[Rollout]:
    """The rollouts with `advantage`, `live_weight` and `teacher_weight` filled, 0 on tokens the model did not choose,
    and in `token_values` and `rollout_values` what these were made of.

    Groups must be whole: the rollouts of one prompt all come in one call.

    Args:
        objective: what is optimised.
        rollouts: of one step, graded, with the teacher's answers where it was asked.
        step: 0-based optimizer step, for annealing.
        seed: of the random choice of `balance`.
        max_new_tokens: the token budget, which `overlong` refers to.
        pieces: ids to the text each adds, which `prefix` finds sentences in.

    Raises:
        AlignmentError: teacher scores and response differ in length, or candidates were not scored.
        DataError: a score outside [0, 1] under a teacher mask.
        TrainingError: a mask or weight of the user's own failed.
    """
    work = [_Work(r) for r in rollouts]
    if objective.outcome is not None:
        _outcome(objective.outcome, [w for w in work if w.rollout.source == "student"], max_new_tokens)
    if objective.teacher_advantage is not None:
        _teacher_advantage(objective.teacher_advantage, work, step, seed, pieces)
    if objective.teacher_loss is not None:
        _teacher_loss(objective, objective.teacher_loss, work)
    return [w.done() for w in work]


class _Work:
    """One rollout while it is credited."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.actions = [t for t, a in enumerate(rollout.completion.action_mask) if a]
        aligned = rollout.teacher.aligned if rollout.teacher is not None else None
        self.heard = self.actions if aligned is None else [t for t in self.actions if aligned[t]]
        length = len(rollout.completion.ids)
        self.advantage, self.live, self.loss = ([0.0] * length for _ in range(3))
        self.token_values: dict[str, tuple[float, ...]] = {}
        self.rollout_values: dict[str, float] = {}

    def done(self) -> Rollout:
        return dataclasses.replace(
            self.rollout,
            advantage=tuple(self.advantage),
            live_weight=tuple(self.live),
            teacher_weight=tuple(self.loss),
            token_values=self.token_values,
            rollout_values=self.rollout_values,
        )

    def rewards(self, scores: TokenScores) -> list[float]:
        """R_t of every token; 0 where the teacher failed to give a finite log-prob, as in Uni-OPD."""
        ratios = teacher_log_ratio(scores.logp, self.rollout.completion.logps)
        return [r if math.isfinite(r) else 0.0 for r in ratios]


def _mask(slot: TeacherAdvantage | TeacherLoss, rollouts: Sequence[Rollout]) -> list[float]:
    if is_function(slot.mask):
        return call_mask(slot.mask, rollouts)
    return mask_weights(cast("Mask", slot.mask), [r.grade.score for r in rollouts], [r.group for r in rollouts])


def _outcome(slot: OutcomeAdvantage, work: Sequence[_Work], max_new_tokens: int) -> None:
    rewards = []
    for w in work:
        completion, score = w.rollout.completion, w.rollout.grade.score
        reward = 2 * score - 1 if slot.signed else score
        if slot.tool_reward is not None:
            calls = max(0, len(action_runs(completion.action_mask)) - 1)
            reward = tool_reward(reward, calls, per_call=slot.tool_reward.per_call, ceiling=slot.tool_reward.ceiling)
        if slot.overlong is not None:
            buffer = max(1, round(slot.overlong.buffer * max_new_tokens))
            reward += overlong_penalty(len(completion.ids), max_new_tokens, buffer, slot.overlong.factor)
        if slot.tool_reward is not None or slot.overlong is not None:
            w.rollout_values["reward"] = reward
        rewards.append(reward)
    groups = [w.rollout.group for w in work]
    if slot.normalise == "leave_one_out":
        relative = leave_one_out(rewards, groups)
    else:
        relative = group_relative(rewards, groups, slot.normalise, slot.eps)
    for w, value in zip(work, relative, strict=True):
        for t in w.actions:
            w.advantage[t] = slot.weight * value


def _teacher_advantage(
    slot: TeacherAdvantage, work: Sequence[_Work], step: int, seed: int, pieces: Pieces | None
) -> None:
    rollouts = [w.rollout for w in work]
    masks = _mask(slot, rollouts)
    own = call_weight(slot.weight, rollouts) if slot.weight is not None else None
    asked: list[tuple[_Work, TokenScores, float, list[float]]] = []
    kept = iter(_balanced(slot, work, seed))
    for i, (w, mask) in enumerate(zip(work, masks, strict=True)):
        if w.rollout.source == "teacher":
            continue
        mask *= next(kept)
        w.rollout_values["teacher_mask"] = mask
        if w.rollout.teacher is not None and (mask != 0 or slot.margin is not None):
            _aligned(w.rollout, w.rollout.teacher)
            weights = own[i] if own is not None else [1.0] * len(w.advantage)
            asked.append((w, w.rollout.teacher, mask, weights))
    rewards = [w.rewards(scores) for w, scores, _, _ in asked]
    shifts, stays = [0.0] * len(asked), [1.0] * len(asked)
    if slot.margin is not None:
        shifts, stays = _margin(slot.margin, [w for w, *_ in asked], rewards)
    for (w, scores, mask, weights), reward, shift, stay in zip(asked, rewards, shifts, stays, strict=True):
        factor = slot.at(step) * (mask * stay)
        if slot.margin is not None and slot.margin.form == "broadcast":
            reward = [w.rollout_values["return"]] * len(reward)
        if slot.future is not None:
            reward = future_sums(reward, w.rollout.completion.action_mask, **slot.future.model_dump())
            w.token_values["future_reward"] = tuple(reward)
        if slot.weight is not None:
            w.token_values["own_weight"] = tuple(weights)
        if slot.steps is not None:
            completion = w.rollout.completion
            steps = step_weights(
                completion.logps, scores.logp, completion.action_mask, eps=slot.steps.eps, delta=slot.steps.delta
            )
            w.token_values["step_weight"] = tuple(steps)
            weights = [a * b for a, b in zip(weights, steps, strict=True)]
        if slot.prefix is not None:
            prefix = _prefix(slot.prefix, w, scores, pieces)
            weights = [a * b for a, b in zip(weights, prefix, strict=True)]
        for t in w.heard:
            if slot.against == "current":
                w.live[t] = factor * weights[t] if math.isfinite(scores.logp[t]) else 0.0
            else:
                w.advantage[t] += factor * weights[t] * (reward[t] + shift)


def _balanced(slot: TeacherAdvantage, work: Sequence[_Work], seed: int) -> list[float]:
    mine = [w for w in work if w.rollout.source == "student"]
    if slot.balance is None:
        return [1.0] * len(mine)
    scores, groups = [w.rollout.grade.score for w in mine], [w.rollout.group for w in mine]
    keep = balance(scores, groups, ratio=slot.balance.ratio, scope=slot.balance.scope, seed=seed)
    for w, stays in zip(mine, keep, strict=True):
        w.rollout_values["balance"] = stays
    return keep


def _margin(slot: Margin, work: Sequence[_Work], rewards: list[list[float]]) -> tuple[list[float], list[float]]:
    """Shift and mask of every rollout. Statistics include rollouts that balancing dropped, as in the released code."""
    returns = []
    for w, reward in zip(work, rewards, strict=True):
        returns.append(math.fsum(reward[t] for t in w.heard) / max(1, len(w.heard)))
        w.rollout_values["return"] = returns[-1]
    scores, groups = [w.rollout.grade.score for w in work], [w.rollout.group for w in work]
    shifts, stays = [0.0] * len(work), [1.0] * len(work)
    if slot.form == "mask":
        stays = margin_mask(returns, scores, groups, delta=slot.delta, scope=slot.scope, statistic=slot.statistic)
    else:
        shifts = margin_shift(returns, scores, groups, **slot.model_dump(exclude={"form"}))
    for w, shift, stay in zip(work, shifts, stays, strict=True):
        w.rollout_values |= {"margin_keep": stay} if slot.form == "mask" else {"shift": shift}
    return shifts, stays


def _prefix(slot: Prefix, w: _Work, scores: TokenScores, pieces: Pieces | None) -> list[float]:
    """P of every token: 1 up to the cut."""
    if pieces is None:
        raise ValueError("`prefix` needs `pieces`, the text that each token adds")
    candidates, length = scores.candidate_logp, len(w.advantage)
    if candidates is None or len(candidates) != length:
        raise AlignmentError(
            "the teacher has not scored the student's candidates",
            where=f"task {w.rollout.task_id}",
            got="none" if candidates is None else f"candidates of {len(candidates)} tokens for {length}",
            fix="use a teacher that answers candidate_ids, such as one in this process",
        )
    margins = [math.nan] * length
    for t in w.actions:
        best = candidates[t][: slot.top_k]
        if len(best) >= 2 and all(math.isfinite(v) for v in best):
            margins[t] = top_k_margin(best, slot.margin)
    segments = []
    for span in segment_spans(pieces(w.rollout.completion.ids), slot.boundary):
        known = [margins[t] for t in span if math.isfinite(margins[t])]
        if known:
            segments.append((math.fsum(known) / len(known), span.stop))
    cut = downward_change([mean for mean, _ in segments], slot.least_segments)
    end = length if cut.segment is None else segments[cut.segment - 1][1]
    w.token_values["candidate_margin"] = tuple(margins)
    w.token_values["prefix"] = tuple(float(t < end) for t in range(length))
    w.rollout_values |= {"cut": float(end), "cut_gain": cut.gain, "segments": float(len(segments))}
    return [float(t < end) for t in range(length)]


def _teacher_loss(objective: Objective, slot: TeacherLoss, work: Sequence[_Work]) -> None:
    rollouts = [w.rollout for w in work]
    own = call_weight(slot.weight, rollouts) if slot.weight is not None else None
    scale = mix_scale(objective, rollouts)
    for i, (w, mask) in enumerate(zip(work, _mask(slot, rollouts), strict=True)):
        w.rollout_values["loss_mask"] = mask
        scores = w.rollout.teacher
        if scores is None or mask == 0:
            continue
        _aligned(w.rollout, scores)
        for t in w.actions:
            if not math.isnan(scores.logp[t]):
                w.loss[t] = mask * scale[w.rollout.source] * (own[i][t] if own is not None else 1.0)
        if own is not None:
            w.token_values["own_loss_weight"] = tuple(own[i])


def mix_scale(objective: Objective, rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Factors that make one average over a step λ times the average over the student's rollouts plus 1 - λ times that
    over the teacher's traces (GKD), however many of each there are; 1 without a mixture.

    With N addends in all and N_s from the student, its factor is λ N / N_s.
    """
    slot = objective.teacher_loss
    if objective.mix is None or slot is None:
        return {"student": 1.0, "teacher": 1.0}
    counts = {"student": 0, "teacher": 0}
    for r in rollouts:
        if r.teacher is not None:
            counts[r.source] += sum(r.completion.action_mask) if slot.aggregate == "token_mean" else 1
    share = {"student": objective.mix.student_share, "teacher": 1 - objective.mix.student_share}
    return {name: share[name] * sum(counts.values()) / max(1, count) for name, count in counts.items()}


def value_means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """`mean_NAME` of every value that `credit` has kept: over rollouts, or over the model's own tokens; values that are
    not finite are left out."""
    found: dict[str, list[float]] = {}
    for r in rollouts:
        for name, value in r.rollout_values.items():
            found.setdefault(name, []).append(value)
        for name, values in r.token_values.items():
            own = [v for v, action in zip(values, r.completion.action_mask, strict=True) if action]
            found.setdefault(name, []).extend(own)
    finite = {name: [v for v in values if math.isfinite(v)] for name, values in found.items()}
    return {f"mean_{name}": math.fsum(values) / len(values) for name, values in finite.items() if values}


def _aligned(rollout: Rollout, scores: TokenScores) -> None:
    if len(scores.logp) != len(rollout.completion.ids):
        raise AlignmentError(
            "the teacher's scores do not line up with the response",
            where=f"task {rollout.task_id}",
            got=f"{len(scores.logp)} scores for {len(rollout.completion.ids)} tokens",
        )
