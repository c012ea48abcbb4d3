"""From credited rollouts to a number: denominators, streams, and the one place that sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import compress
from operator import and_
from typing import TYPE_CHECKING

import torch

from vold.objective.custom_loss import estimator, token_loss
from vold.objective.losses import (
    SAMPLED,
    clipped_surrogate,
    importance,
    importance_surrogate,
    inside_band,
    k1,
    k3,
    nll,
    sequence_log_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from vold.objective.spec import Objective
    from vold.objective.terms import Aggregate, EntropyBonus, Nll, OwnLoss, ReferenceKl, Surrogate, TeacherLoss
    from vold.types import Rollout

    Averaged = Surrogate | TeacherLoss | Nll | ReferenceKl | EntropyBonus | OwnLoss


@dataclass(frozen=True)
class Denominators:
    """What the sum of each term is divided by, for one whole optimizer step: a number of tokens or of rollouts.

    With several processes, add up theirs, and SUM the gradients over processes (an average divides once too often).
    """

    surrogate: int = 0
    teacher_loss: int = 0
    nll: int = 0
    reference: int = 0
    entropy: int = 0
    own_loss: int = 0

    def __add__(self, other: Denominators) -> Denominators:
        return Denominators(*map(sum, zip(vars(self).values(), vars(other).values(), strict=True)))


def token_counts(
    objective: Objective,
    rollouts: Sequence[Rollout],
    *,
    teachable: Sequence[bool] | None = None,
    max_new_tokens: int = 1,
) -> Denominators:
    """Denominators of one optimizer step, counted once, before it is cut into micro-batches.

    The surrogate's leaves out the teacher's traces, which are no samples of the student. A task without a text view
    dilutes neither term of the teacher: it is left out of the teacher loss's, and of the surrogate's where the
    teacher's advantage is all there is. With an advantage of the outcome or the reference its rollouts learn too, and
    count. The reference's has all of the student's rollouts, those of the entropy and of the user's own all there are.

    Args:
        objective: says which terms count tokens and which count rollouts.
        rollouts: ALL rollouts of the step on this process, also those that carry no signal.
        teachable: [rollouts] whether the task has a text view, so that the teacher can be asked; by default all have.
        max_new_tokens: the token budget, which `budget_mean` divides by.
    """
    everyone = [int(r.completion.action_mask.sum()) for r in rollouts]
    own = [r.source == "student" for r in rollouts]
    teachable = teachable if teachable is not None else [True] * len(rollouts)
    reference = objective.reference is not None and objective.reference.is_advantage
    learns = [True] * len(rollouts) if reference or objective.outcome is not None else teachable

    def those(chosen: Iterable[bool]) -> list[int]:
        return list(compress(everyone, chosen))

    def count(term: Averaged | None, lengths: list[int]) -> int:
        if term is None:
            return 0
        if term.aggregate == "budget_mean":
            return len(lengths) * max_new_tokens
        return sum(lengths) if term.aggregate == "token_mean" else len(lengths)

    return Denominators(
        count(objective.surrogate, those(map(and_, learns, own))),
        count(objective.teacher_loss, those(teachable)),
        count(objective.nll, everyone),
        count(objective.reference, those(own)),
        count(objective.entropy, everyone),
        count(objective.own_loss, everyone),
    )


@dataclass(frozen=True, eq=False)
class Streams:
    """Flat per-token values of a micro-batch, [tokens] each: action tokens only, rollout after rollout.

    Attributes:
        logp: student log-probs, with gradient.
        behaviour_logp: log-probs at the time of sampling; NaN where the student has not sampled. Read where the
            advantage or the teacher's weight is not 0.
        advantage: from `credit`, read where it is not 0.
        teacher_logp: the teacher's log-probs; NaN where it was not asked.
        teacher_weight: from `credit`. Where it is 0, `teacher_logp` cannot reach the loss.
        sequence_index: the rollout each token belongs to; all of a rollout's tokens are in one micro-batch.
        sequence_length: number of action tokens of that rollout.
        live_weight: from `credit`, for a teacher reward taken against `logp`; absent where there is none.
        divergence: D of every token, with gradient, for an estimator over the vocabulary; absent for the others.
        reference_logp: log-probs of the model that the stage began with; NaN where it was not asked.
        old_logp: the trainer's log-probs when the step began; absent where they are those of `logp`.
        entropy: the student's, with gradient; absent where no term uses it.

    Raises:
        ValueError: a stream that is not one-dimensional or not as long as the others.
    """

    logp: Tensor
    behaviour_logp: Tensor
    advantage: Tensor
    teacher_logp: Tensor
    teacher_weight: Tensor
    sequence_index: Tensor
    sequence_length: Tensor
    live_weight: Tensor | None = None
    divergence: Tensor | None = None
    reference_logp: Tensor | None = None
    old_logp: Tensor | None = None
    entropy: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = {name: list(value.shape) for name, value in vars(self).items() if value is not None}
        if any(shape != [self.logp.numel()] for shape in shapes.values()):
            raise ValueError(f"streams must be one-dimensional and equally long, got {shapes}")

    def at(self, tokens: slice, logp: Tensor, divergence: Tensor | None, entropy: Tensor | None = None) -> Streams:
        """The streams of some tokens, with log-probs, divergence and entropy that were read there."""
        cut = {name: value[tokens] for name, value in vars(self).items() if value is not None}
        read = {"logp": logp, "divergence": divergence, "entropy": entropy}
        return Streams(**cut | {name: value for name, value in read.items() if value is not None})


def total(
    objective: Objective, streams: Streams, denominators: Denominators, step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one micro-batch, ready for `backward`, and its metrics.

    Losses and gradients of the micro-batches of a step ADD UP to those of the whole step. So do the metrics, all of
    them sums: the addends of the loss, coefficients included (`policy_loss`, `teacher_loss`), and counts and sums that
    `averages` turns into means. A term reads zeros at tokens that it does not use, so a NaN there reaches neither its
    value nor a gradient; shapes stay, and a GPU's host never waits for a number of tokens. If nothing is used the loss
    is a 0 that can be back-propagated. Computed in float32 at least.

    Args:
        objective: the terms.
        streams: this micro-batch.
        denominators: of the whole step, from `token_counts`.
        step: 0-based optimizer step, for annealing.
    """
    logp = streams.logp.float() if streams.logp.dtype.itemsize < 4 else streams.logp
    loss = logp.new_zeros(())
    metrics: dict[str, Tensor] = {}

    def add(name: str, values: Tensor, aggregate: Aggregate, denominator: int) -> Tensor:
        if aggregate == "sequence_mean":
            values = values / streams.sequence_length
        value = values.sum() / max(1, denominator)
        metrics[name] = value.detach()
        return loss + value

    if (s := objective.surrogate) is not None:
        values, sums = _policy(objective, s, streams, logp)
        loss = add("policy_loss", values, s.aggregate, denominators.surrogate)
        metrics |= sums
    if (t := objective.teacher_loss) is not None:
        on = streams.teacher_weight != 0
        values = t.at(step) * streams.teacher_weight * _divergence(t, streams, logp, on)
        loss = add("teacher_loss", values, t.aggregate, denominators.teacher_loss)
    if (n := objective.nll) is not None:
        loss = add("nll_loss", nll(logp), n.aggregate, denominators.nll)
    metrics |= _gap(objective, streams, logp)
    if (r := objective.reference) is not None:  # a micro-batch of traces alone has no log-probs of it, but its metrics
        said = streams.reference_logp if streams.reference_logp is not None else torch.full_like(logp, math.nan)
        on = said.isfinite()
        student, reference = _used(on, logp), _used(on, said)
        if r.is_loss:
            values = r.coefficient * SAMPLED[r.estimator](student, reference)
            loss = add("reference_loss", values, r.aggregate, denominators.reference)
        metrics |= {"reference_kl_sum": k3(student.detach(), reference).sum(), "reference_tokens": on.sum()}
    if (e := objective.entropy) is not None:
        loss = add("entropy_loss", -e.coefficient * _entropy(streams), e.aggregate, denominators.entropy)
    if (o := objective.own_loss) is not None:
        values = token_loss(o.function, replace(streams, logp=logp), o.options)
        loss = add("own_loss", o.at(step) * values, o.aggregate, denominators.own_loss)
    return loss, metrics


def _gap(objective: Objective, streams: Streams, logp: Tensor) -> dict[str, Tensor]:
    """The distance of student and teacher over the tokens that the teacher scored, and how many these are."""
    if not objective.uses_teacher:
        return {}
    on = streams.teacher_logp.isfinite()
    gap = k1(_used(on, logp.detach()), _used(on, streams.teacher_logp))
    return {"teacher_gap_sum": gap.sum(), "scored_tokens": on.sum()}


def _policy(objective: Objective, term: Surrogate, streams: Streams, logp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The surrogate of every token, and sums for its metrics."""
    on, new, old, advantage, sums = _selected(objective, term, streams, logp)
    if term.clip_low is None or term.clip_high is None:
        low, high = 0.0, math.inf
        values = importance_surrogate(new, old, advantage)
    else:
        low, high = 1 - term.clip_low, 1 + term.clip_high
        values = clipped_surrogate(new, old, advantage, term.clip_low, term.clip_high, term.dual_clip)
    ratio = _used(on, (new.detach() - old).exp())
    most = math.inf if term.dual_clip is None else term.dual_clip
    above = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio > most))
    below = (advantage < 0) & (ratio < low)
    return values, sums | {"ratio_sum": ratio.sum(), "clipped_above": above.sum(), "clipped_below": below.sum()}


def _selected(
    objective: Objective, term: Surrogate, streams: Streams, logp: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Which tokens teach, their log-probs, those that the ratio is taken to, and advantages times importance weights,
    [tokens] each with 0 at the others; and the number of these tokens, and of those that gate and band have dropped."""
    own, behaviour, live = logp.detach(), streams.behaviour_logp, streams.live_weight
    weight, cap = None, term.importance_cap
    if cap is not None:
        old = own if streams.old_logp is None else streams.old_logp
        weight, behaviour = importance(old, behaviour, cap), old
    if term.ratio == "sequence":
        behaviour = own - sequence_log_ratio(logp, behaviour, streams.sequence_index).detach()
    signal = streams.advantage != 0
    advantage = streams.advantage
    if live is not None:
        signal = signal | (live != 0)
        # no gradient flows here, so a NaN that `where` leaves out is gone for good
        advantage = advantage + (live * (streams.teacher_logp - own)).where(live != 0, live.new_zeros(()))
    on = signal
    if objective.teacher_advantage is not None and objective.teacher_advantage.gate is not None:
        on = on & ~((own - streams.teacher_logp).abs() >= objective.teacher_advantage.gate)
    if term.band is not None:
        on = on & inside_band(own - behaviour, term.band.low, term.band.high)
    counts = {"policy_tokens": on.sum(), "dropped_tokens": (signal & ~on).sum()}
    if cap is not None and weight is not None:
        advantage = advantage * weight  # the surrogate is linear in the size of an advantage, clipped or not
        counts |= {"importance_sum": _used(on, weight).sum(), "capped_tokens": (on & (weight >= cap)).sum()}
    return on, _used(on, logp), _used(on, behaviour), _used(on, advantage), counts


def _used(on: Tensor, values: Tensor) -> Tensor:
    """The values of the tokens that are on, 0 at the others, which no gradient reaches."""
    return values.where(on, 0.0)


def _divergence(term: TeacherLoss, streams: Streams, logp: Tensor, on: Tensor) -> Tensor:
    if not term.over_vocabulary:
        values = estimator(term.estimator)(_used(on, logp), _used(on, streams.teacher_logp))
        sampled = on & streams.behaviour_logp.isfinite()
        return values * importance(_used(sampled, logp), _used(sampled, streams.behaviour_logp))
    if streams.divergence is None:
        raise ValueError(f"{term.estimator} needs the stream `divergence`")
    return _used(on, streams.divergence)


def _entropy(streams: Streams) -> Tensor:
    if streams.entropy is None:
        raise ValueError("an entropy bonus needs the stream `entropy`")
    return streams.entropy


def averages(sums: Mapping[str, float]) -> dict[str, float]:
    """Means from the metrics of `total`, added up over micro-batches (and processes); those without tokens are absent.

    Returns:
        `ratio`, `clip_fraction` and its parts `clip_high_fraction` and `clip_low_fraction` over tokens with an
        advantage, `dropped_fraction` of those that gate and band took out (absent where none), `teacher_gap` (k1,
        nats, student minus teacher, unweighted) over tokens the teacher scored, `reference_kl` (k3) over those the
        reference scored, `importance` and `importance_capped` over tokens with an advantage, and the losses as they
        are.
    """
    out = {name: value for name, value in sums.items() if name.endswith("_loss")}
    for name, over, count in (
        ("ratio", "ratio_sum", "policy_tokens"),
        ("clip_high_fraction", "clipped_above", "policy_tokens"),
        ("clip_low_fraction", "clipped_below", "policy_tokens"),
        ("importance", "importance_sum", "policy_tokens"),
        ("importance_capped", "capped_tokens", "policy_tokens"),
        ("teacher_gap", "teacher_gap_sum", "scored_tokens"),
        ("reference_kl", "reference_kl_sum", "reference_tokens"),
    ):
        if over in sums and sums.get(count, 0) > 0:
            out[name] = sums[over] / sums[count]
    if "ratio" in out:
        out["clip_fraction"] = (sums["clipped_above"] + sums["clipped_below"]) / sums["policy_tokens"]
    if (dropped := sums.get("dropped_tokens", 0)) > 0:
        out["dropped_fraction"] = dropped / (dropped + sums["policy_tokens"])
    return out
