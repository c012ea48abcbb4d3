"""Who the teacher is asked about, and what every token of a rollout is credited with."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from vold.errors import AlignmentError
from vold.objective.advantages import future_sums, mask_weights, policy_shift, step_weights, teacher_log_ratio
from vold.objective.custom import call_mask, call_weight
from vold.objective.outcome import outcome_advantages, outcome_rewards
from vold.objective.prefix_teach import downward_change, segment_means, segment_spans, top_k_margin
from vold.objective.uni_opd import balance, margin_mask, margin_shift
from vold.objective.unscored import asked, refuse_impossible
from vold.types.arrays import frozen
from vold.types.named import is_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from vold.objective.advantages import Numbers
    from vold.objective.options import Margin, Prefix
    from vold.objective.spec import Objective
    from vold.objective.terms import Mask, MaskedTerm, OutcomeAdvantage, TeacherAdvantage, TeacherLoss
    from vold.types import Rollout, TokenScores

    TokenTexts = Callable[[Sequence[int]], list[str]]


def needs_teacher(objective: Objective, rollouts: Sequence[Rollout]) -> list[bool]:
    """Which rollouts the teacher must score: those some term's mask gives a weight other than 0. Of their tokens, only
    the model's own (action mask 1) are read.

    Raises:
        DataError: a score outside [0, 1].
        TrainingError: a mask of the user's own failed.
    """
    wanted = [False] * len(rollouts)
    for term in objective.teacher_terms:
        wanted = [w or m != 0 for w, m in zip(wanted, _mask(term, rollouts), strict=True)]
    return wanted


def credit(
    objective: Objective,
    rollouts: Sequence[Rollout],
    step: int,
    *,
    seed: int = 0,
    max_new_tokens: int = 0,
    token_texts: TokenTexts | None = None,
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
        token_texts: ids to the text each adds, which `prefix` finds sentences in and errors name tokens by.

    Raises:
        AlignmentError: teacher scores and response differ in length, or candidates were not scored.
        TeacherError: a token in a teacher loss on sampled tokens has the log-prob minus infinity.
        DataError: a score outside [0, 1] under a teacher mask.
        TrainingError: a mask or weight of the user's own failed.
    """
    work = [_Work(r) for r in rollouts]
    if objective.outcome is not None:
        _outcome(objective.outcome, [w for w in work if w.rollout.source == "student"], max_new_tokens)
    if objective.teacher_advantage is not None:
        _teacher_advantage(objective.teacher_advantage, work, step, seed, token_texts)
    if (reference := objective.reference) is not None and reference.is_advantage:
        for w in work:
            if (logp := w.rollout.reference_logp) is not None:
                w.advantage[w.own] -= reference.coefficient * teacher_log_ratio(w.rollout.completion.logps, logp)[w.own]
    if objective.teacher_loss is not None:
        _teacher_loss(objective, objective.teacher_loss, work, token_texts)
    return [w.done() for w in work]


class _Work:
    """One rollout while it is credited, in float64.

    `own` are the tokens that the model chose, `scored` those of them that the teacher's tokenizer lines up with.
    """

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.own = rollout.completion.action_mask
        self.scored = asked(rollout)
        self.advantage, self.live, self.loss = np.zeros((3, len(rollout.completion.ids)))
        self.token_values: dict[str, Numbers] = {}
        self.rollout_values: dict[str, float] = {}

    def done(self) -> Rollout:
        return dataclasses.replace(
            self.rollout,
            advantage=self.advantage,
            live_weight=self.live,
            teacher_weight=self.loss,
            token_values={name: frozen(values, "float32") for name, values in self.token_values.items()},
            rollout_values=self.rollout_values,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Scored:
    """A rollout that the teacher has scored, with its factor M, its own weight W and its rewards R_t; 0 where the
    teacher failed to give a finite log-prob, as in Uni-OPD."""

    work: _Work
    scores: TokenScores
    ratios: Numbers
    mask: float
    own_weight: Numbers | None

    @cached_property
    def heard(self) -> Numbers:
        """1 where the teacher gave a finite log-prob, else 0: a token it failed on counts in the return of its rollout,
        and then learns nothing, as in Uni-OPD's code."""
        return np.isfinite(self.scores.logp).astype(np.float64)

    @cached_property
    def rewards(self) -> Numbers:
        return np.where(np.isfinite(self.ratios), self.ratios, 0.0)


def _mask(term: MaskedTerm, rollouts: Sequence[Rollout]) -> list[float]:
    if term.mask is None:
        return [1.0] * len(rollouts)
    if is_named(term.mask):
        return call_mask(term.mask, rollouts, term.mask_options)
    return mask_weights(cast("Mask", term.mask), [r.grade.score for r in rollouts], [r.group for r in rollouts])


def _outcome(term: OutcomeAdvantage, work: Sequence[_Work], max_new_tokens: int) -> None:
    rollouts = [w.rollout for w in work]
    rewards = outcome_rewards(term, rollouts, max_new_tokens)
    relative = outcome_advantages(term, rewards, [r.group for r in rollouts])
    for w, value, reward, mask in zip(work, relative, rewards, _mask(term, rollouts), strict=True):
        if term.tool_reward is not None or term.overlong is not None:
            w.rollout_values["reward"] = reward
        w.advantage[w.own] = term.weight * mask * value


def _teacher_advantage(
    term: TeacherAdvantage, work: Sequence[_Work], step: int, seed: int, token_texts: TokenTexts | None
) -> None:
    scored = _scored(term, work, seed)
    shifts, stays = [0.0] * len(scored), [1.0] * len(scored)
    if term.margin is not None:
        shifts, stays = _margin(term.margin, scored)
    for s, shift, stay in zip(scored, shifts, stays, strict=True):
        w, on = s.work, s.work.scored
        weight = term.at(step) * (s.mask * stay) * _token_weights(term, s, token_texts)
        if term.against == "current":
            w.live[on] = (weight * s.heard)[on]
        else:
            w.advantage[on] += (weight * (_token_rewards(term, s) + shift * s.heard))[on]


def _scored(term: TeacherAdvantage, work: Sequence[_Work], seed: int) -> list[_Scored]:
    """The student's rollouts that the teacher has scored, as far as anything depends on them."""
    rollouts = [w.rollout for w in work]
    own = call_weight(term.weight, rollouts, term.weight_options) if term.weight is not None else [None] * len(work)
    kept = iter(_balanced(term, work, seed))
    out = []
    for w, mask, weight in zip(work, _mask(term, rollouts), own, strict=True):
        if w.rollout.source == "teacher":
            continue
        mask *= next(kept)
        w.rollout_values["teacher_mask"] = mask
        if w.rollout.teacher is not None and (mask != 0 or term.margin is not None):
            line_up(w.rollout, w.rollout.teacher)
            out.append(_Scored(w, w.rollout.teacher, _ratios(term, w), mask, weight))
    return out


def _ratios(term: TeacherAdvantage, w: _Work) -> Numbers:
    """What is taken for log π_T - log π_old at every token, not finite where somebody failed."""
    teacher, behaviour = cast("TokenScores", w.rollout.teacher).logp, w.rollout.completion.logps
    if term.against != "reference":
        return teacher_log_ratio(teacher, behaviour)
    if w.rollout.contrast_logp is None:
        return np.full(len(behaviour), np.nan)
    w.token_values["policy_shift"] = policy_shift(teacher, w.rollout.contrast_logp)
    return policy_shift(teacher, w.rollout.contrast_logp, behaviour, term.extrapolation)


def _token_weights(term: TeacherAdvantage, s: _Scored, token_texts: TokenTexts | None) -> Numbers:
    """W and P of every token."""
    weights, completion, kept = np.ones(len(s.work.own)), s.work.rollout.completion, s.work.token_values
    if s.own_weight is not None:
        weights = kept["own_weight"] = s.own_weight
    if term.steps is not None:
        kept["step_weight"] = step_weights(
            completion.logps, s.scores.logp, completion.action_mask, eps=term.steps.eps, delta=term.steps.delta
        )
        weights = weights * kept["step_weight"]
    if term.prefix is not None:
        weights = weights * _prefix(term.prefix, s.work, s.scores, token_texts)
    return weights


def _token_rewards(term: TeacherAdvantage, s: _Scored) -> Numbers:
    """R_t, or what stands in its place."""
    rewards = s.rewards
    if term.margin is not None and term.margin.form == "broadcast":
        rewards = s.work.rollout_values["return"] * s.heard
    if term.future is not None:
        rewards = future_sums(rewards, s.work.own, **term.future.model_dump())
        s.work.token_values["future_reward"] = rewards
    return rewards


def _balanced(term: TeacherAdvantage, work: Sequence[_Work], seed: int) -> list[float]:
    mine = [w for w in work if w.rollout.source == "student"]
    if term.balance is None:
        return [1.0] * len(mine)
    scores, groups = [w.rollout.grade.score for w in mine], [w.rollout.group for w in mine]
    keep = balance(scores, groups, ratio=term.balance.ratio, scope=term.balance.scope, seed=seed)
    for w, stays in zip(mine, keep, strict=True):
        w.rollout_values["balance"] = stays
    return keep


def _margin(options: Margin, scored: Sequence[_Scored]) -> tuple[list[float], list[float]]:
    """Shift and mask of every rollout. Statistics include rollouts that balancing dropped, as in the released code."""
    work, returns = [s.work for s in scored], []
    for s, w in zip(scored, work, strict=True):
        returns.append(math.fsum(s.rewards[w.scored].tolist()) / max(1, int(w.scored.sum())))
        w.rollout_values["return"] = returns[-1]
    scores, groups = [w.rollout.grade.score for w in work], [w.rollout.group for w in work]
    shifts, stays = [0.0] * len(work), [1.0] * len(work)
    if options.form == "mask":
        stays = margin_mask(
            returns, scores, groups, delta=options.delta, scope=options.scope, statistic=options.statistic
        )
    else:
        shifts = margin_shift(returns, scores, groups, **options.model_dump(exclude={"form"}))
    for w, shift, stay in zip(work, shifts, stays, strict=True):
        w.rollout_values |= {"margin_keep": stay} if options.form == "mask" else {"shift": shift}
    return shifts, stays


def _prefix(options: Prefix, w: _Work, scores: TokenScores, token_texts: TokenTexts | None) -> Numbers:
    """P of every token: 1 up to the cut."""
    if token_texts is None:
        raise ValueError("`prefix` needs `token_texts`, the text that each token adds")
    candidates, length = scores.candidate_logp, len(w.own)
    if candidates is None or len(candidates) != length:
        raise AlignmentError(
            "the teacher has not scored the student's candidates",
            where=f"task {w.rollout.task_id}",
            got="none" if candidates is None else f"candidates of {len(candidates)} tokens for {length}",
            fix="use a teacher that answers candidate_ids, such as one in this process",
        )
    margins = np.where(w.own, top_k_margin(candidates[:, : options.top_k], options.margin), np.nan)
    segments = segment_means(margins, segment_spans(token_texts(w.rollout.completion.ids.tolist()), options.boundary))
    cut = downward_change([mean for mean, _ in segments])
    end = length if cut.segment is None else segments[cut.segment - 1][1]
    prefix = (np.arange(length) < end).astype(np.float64)
    w.token_values |= {"candidate_margin": margins, "prefix": prefix}
    w.rollout_values |= {"cut": float(end), "cut_gain": cut.gain, "segments": float(len(segments))}
    return prefix


def _teacher_loss(
    objective: Objective, term: TeacherLoss, work: Sequence[_Work], token_texts: TokenTexts | None
) -> None:
    rollouts = [w.rollout for w in work]
    own = call_weight(term.weight, rollouts, term.weight_options) if term.weight is not None else None
    scale = mix_scale(objective, rollouts)
    for i, (w, mask) in enumerate(zip(work, _mask(term, rollouts), strict=True)):
        w.rollout_values["loss_mask"] = mask
        scores = w.rollout.teacher
        if scores is None or mask == 0:
            continue
        line_up(w.rollout, scores)
        on = w.own & ~np.isnan(scores.logp)
        if not term.over_vocabulary:
            weighed = on if own is None else on & (own[i] != 0)
            refuse_impossible(w.rollout, i, weighed, token_texts)
        w.loss[on] = mask * scale[w.rollout.source] * (own[i][on] if own is not None else 1.0)
        if own is not None:
            w.token_values["own_loss_weight"] = own[i]


def mix_scale(objective: Objective, rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Factors that make one average over a step λ times the average over the student's rollouts plus 1 - λ times that
    over the teacher's traces (GKD), however many of each there are; 1 without a mixture.

    With N addends in all and N_s from the student, its factor is λ N / N_s.
    """
    term = objective.teacher_loss
    if objective.mix is None or term is None:
        return {"student": 1.0, "teacher": 1.0}
    counts = {"student": 0, "teacher": 0}
    for r in rollouts:
        if r.teacher is not None:
            counts[r.source] += int(r.completion.action_mask.sum()) if term.aggregate == "token_mean" else 1
    share = {"student": objective.mix.student_share, "teacher": 1 - objective.mix.student_share}
    return {name: share[name] * sum(counts.values()) / max(1, count) for name, count in counts.items()}


def value_means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """`mean_NAME` of every value that `credit` has kept: over rollouts, or over the model's own tokens; values that are
    not finite are left out."""
    found: dict[str, list[ArrayLike]] = {}
    for r in rollouts:
        for name, value in r.rollout_values.items():
            found.setdefault(name, []).append([value])
        for name, values in r.token_values.items():
            found.setdefault(name, []).append(np.asarray(values)[r.completion.action_mask])
    together = {name: np.concatenate(values) for name, values in found.items()}
    finite = {name: values[np.isfinite(values)] for name, values in together.items()}
    return {f"mean_{name}": float(values.mean(dtype=np.float64)) for name, values in finite.items() if len(values)}


def line_up(rollout: Rollout, scores: TokenScores) -> None:
    """Refuse scores that are not one a token of the response.

    Raises:
        AlignmentError: there are more, or fewer.
    """
    if len(scores.logp) != len(rollout.completion.ids):
        raise AlignmentError(
            "the teacher's scores do not line up with the response",
            where=f"task {rollout.task_id}",
            got=f"{len(scores.logp)} scores for {len(rollout.completion.ids)} tokens",
        )
