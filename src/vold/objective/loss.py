"""What is optimised: one small algebra, of which every published method is a preset.

    A_t = a · A_outcome + c(step) · M(rollout) · R_t            detached, R_t = log π_T - log π_old
    L   = agg surrogate(π_θ/π_old, A_t; clip) + β(step) · agg M(rollout) · D(π_θ, π_T) + agg nll

`credit` computes A, `teacher_weights` computes M, `token_counts` the denominators of `agg`, and `total` is the one
place that selects, weighs, normalises and sums.

VOLD's (1 - r) stands inside the expectation over rollouts (Eq. 6). So a denominator counts every rollout of the
step, also those whose weight is 0: as the student passes more often, the teacher term fades.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from vold.advantages import group_relative, leave_one_out, mask_weights, teacher_log_ratio
from vold.errors import AlignmentError, ConfigError
from vold.losses import clipped_surrogate, importance_surrogate, k1, k2, k3, nll
from vold.slots import Nll, OutcomeAdvantage, Slot, Surrogate, TeacherAdvantage, TeacherLoss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vold.slots import Aggregate
    from vold.types import Rollout

Method = Literal["vold", "grpo", "kdrl", "opd", "sft"]

_GRPO: dict[str, Any] = {
    "outcome": {"weight": 1.0, "normalise": "std"},
    "surrogate": {"clip_low": 0.2, "clip_high": 0.3, "aggregate": "token_mean"},
}
_K2: dict[str, Any] = {"estimator": "k2", "aggregate": "token_mean"}

PRESETS: dict[str, dict[str, Any]] = {
    "vold": _GRPO | {"teacher_loss": _K2 | {"coefficient": 0.1, "mask": "failed"}},
    "grpo": _GRPO,  # VOLD without its teacher: the baseline of the paper's ablation, same clip bounds
    "kdrl": _GRPO
    | {"teacher_loss": _K2 | {"coefficient": 5e-3, "final_coefficient": 1e-3, "anneal_per_step": 5e-5, "mask": "none"}},
    "opd": {
        "teacher_advantage": {"coefficient": 1.0, "mask": "none"},
        "surrogate": {"clip_low": None, "clip_high": None, "aggregate": "token_mean"},
    },
    "sft": {"nll": {"aggregate": "token_mean"}},
}
"""What `method` stands for. Slots not named are empty."""


class Objective(Slot):
    """A preset by `method`, and any part of it overridden beside it; null empties a slot.

    Example:
        >>> o = Objective.model_validate({"method": "vold", "teacher_loss": {"coefficient": 0.5}})
        >>> o.teacher_loss.coefficient, o.teacher_loss.mask
        (0.5, 'failed')
        >>> Objective.model_validate({"method": "vold", "teacher_loss": None}).uses_teacher
        False
    """

    method: Method | None = "vold"
    """The preset to start from (`vold.objective.PRESETS`); null starts from empty slots."""
    outcome: OutcomeAdvantage | None = None
    """Advantage from the verifier."""
    teacher_advantage: TeacherAdvantage | None = None
    """Advantage from the teacher."""
    surrogate: Surrogate | None = None
    """The loss that uses the advantages."""
    teacher_loss: TeacherLoss | None = None
    """The loss that compares student and teacher directly."""
    nll: Nll | None = None
    """The likelihood loss."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        method = data.get("method", "vold") if isinstance(data, dict) else None
        return _merged(PRESETS.get(method, {}), data) if isinstance(method, str) else data

    @model_validator(mode="after")
    def _hangs_together(self) -> Objective:
        advantages = [n for n in ("outcome", "teacher_advantage") if getattr(self, n) is not None]
        if advantages and self.surrogate is None:
            raise ConfigError(f"nothing uses the advantage of {' and '.join(advantages)}", fix="add a `surrogate`")
        if self.surrogate is not None and not advantages:
            raise ConfigError(
                "the surrogate has no advantage to work with",
                fix="add `outcome` or `teacher_advantage`, or set `surrogate: null` as well",
            )
        if self.surrogate is None and self.teacher_loss is None and self.nll is None:
            raise ConfigError("this objective has no loss", fix=f"start from a method: {', '.join(PRESETS)}")
        return self

    @property
    def uses_teacher(self) -> bool:
        """Whether any part needs the teacher's log-probs."""
        return self.teacher_advantage is not None or self.teacher_loss is not None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, dictionary by dictionary; any other value, None included, replaces."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out


def needs_teacher(objective: Objective, grade_scores: Sequence[float], groups: Sequence[int]) -> list[bool]:
    """Which rollouts the teacher must score: those some slot gives a weight other than 0. Of their tokens, only the
    model's own (action mask 1) are read.

    Raises:
        DataError: a score outside [0, 1].
    """
    wanted = [False] * len(grade_scores)
    for slot in (objective.teacher_advantage, objective.teacher_loss):
        if slot is not None:
            weights = mask_weights(slot.mask, grade_scores, groups)
            wanted = [w or m != 0 for w, m in zip(wanted, weights, strict=True)]
    return wanted


def teacher_weights(objective: Objective, rollouts: Sequence[Rollout]) -> list[float]:
    """M of every rollout in the teacher LOSS; 0 without that slot, and where the teacher has not spoken.

    Raises:
        DataError: a score outside [0, 1].
    """
    return _weights(objective.teacher_loss, rollouts)


def credit(objective: Objective, rollouts: Sequence[Rollout], step: int) -> list[tuple[float, ...]]:
    """The advantage A_t of every token of every rollout, 0 on tokens the model did not choose.

    Groups must be whole: the rollouts of one prompt all come in one call.

    Raises:
        AlignmentError: teacher scores and response differ in length.
        DataError: a score outside [0, 1] under a teacher mask.
    """
    base = [0.0] * len(rollouts)
    if objective.outcome is not None:
        scores, groups, o = [r.grade.score for r in rollouts], [r.group for r in rollouts], objective.outcome
        if o.normalise == "leave_one_out":
            relative = leave_one_out(scores, groups)
        else:
            relative = group_relative(scores, groups, o.normalise, o.eps)
        base = [o.weight * a for a in relative]
    slot = objective.teacher_advantage
    out = []
    for rollout, advantage, weight in zip(rollouts, base, _weights(slot, rollouts), strict=True):
        dense = [0.0] * len(rollout.completion.ids)
        if slot is not None and weight != 0 and rollout.teacher is not None:
            if len(rollout.teacher.logp) != len(dense):
                raise AlignmentError(
                    "the teacher's scores do not line up with the response",
                    where=f"task {rollout.task_id}",
                    got=f"{len(rollout.teacher.logp)} scores for {len(dense)} tokens",
                )
            ratios = teacher_log_ratio(rollout.teacher.logp, rollout.completion.logps)
            dense = [slot.at(step) * weight * ratio for ratio in ratios]
        actions = rollout.completion.action_mask
        out.append(tuple(advantage + d if action else 0.0 for d, action in zip(dense, actions, strict=True)))
    return out


def _weights(slot: TeacherAdvantage | TeacherLoss | None, rollouts: Sequence[Rollout]) -> list[float]:
    if slot is None:
        return [0.0] * len(rollouts)
    weights = mask_weights(slot.mask, [r.grade.score for r in rollouts], [r.group for r in rollouts])
    return [0.0 if r.teacher is None else w for w, r in zip(weights, rollouts, strict=True)]


@dataclass(frozen=True)
class Denominators:
    """What the sum of each term is divided by, for one whole optimizer step: a number of tokens or of rollouts.

    With several processes, add up theirs, and SUM the gradients over processes (an average divides once too often).
    """

    surrogate: int = 0
    teacher_loss: int = 0
    nll: int = 0

    def __add__(self, other: Denominators) -> Denominators:
        return Denominators(
            self.surrogate + other.surrogate, self.teacher_loss + other.teacher_loss, self.nll + other.nll
        )


def token_counts(
    objective: Objective, rollouts: Sequence[Rollout], *, teachable: Sequence[bool] | None = None
) -> Denominators:
    """Denominators of one optimizer step, counted once, before it is cut into micro-batches.

    Args:
        objective: says which slots count tokens and which count rollouts.
        rollouts: ALL rollouts of the step on this process, also those that carry no signal.
        teachable: [rollouts] whether the task has a text view. Rollouts the teacher could never be asked about are
            left out of the teacher term's denominator, lest they dilute it; by default every rollout counts.
    """
    everyone = [sum(1 for a in r.completion.action_mask if a) for r in rollouts]
    seen = everyone if teachable is None else [n for n, ok in zip(everyone, teachable, strict=True) if ok]

    def count(slot: Surrogate | TeacherLoss | Nll | None, lengths: list[int]) -> int:
        if slot is None:
            return 0
        return sum(lengths) if slot.aggregate == "token_mean" else len(lengths)

    return Denominators(
        count(objective.surrogate, everyone), count(objective.teacher_loss, seen), count(objective.nll, everyone)
    )


@dataclass(frozen=True, eq=False)
class Streams:
    """Flat per-token values of a micro-batch, [tokens] each: action tokens only, rollout after rollout.

    Attributes:
        logp: student log-probs, with gradient.
        behaviour_logp: log-probs at the time of sampling. Like `advantage`, read where the advantage is not 0.
        advantage: from `credit`.
        teacher_logp: the teacher's log-probs; NaN where it was not asked.
        teacher_weight: M from `teacher_weights`. Where it is 0, `teacher_logp` cannot reach the loss.
        sequence_index: the rollout each token belongs to. No present term reads it.
        sequence_length: number of action tokens of that rollout.

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

    def __post_init__(self) -> None:
        shapes = {name: list(value.shape) for name, value in vars(self).items()}
        if any(shape != [self.logp.numel()] for shape in shapes.values()):
            raise ValueError(f"streams must be one-dimensional and equally long, got {shapes}")


def total(
    objective: Objective, streams: Streams, denominators: Denominators, step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one micro-batch, ready for `backward`, and its metrics.

    Losses and gradients of the micro-batches of a step ADD UP to those of the whole step. So do the metrics, all of
    them sums: `policy_loss`, `teacher_loss`, `nll_loss` (the addends of the loss, coefficients included), and counts
    and sums that `averages` turns into means. Tokens are selected before any arithmetic: a NaN on a token that a
    term does not use reaches neither its value nor a gradient. If nothing is selected the loss is a 0 that can be
    back-propagated. Computed in float32 at least.

    Args:
        objective: the terms.
        streams: this micro-batch.
        denominators: of the whole step, from `token_counts`.
        step: 0-based optimizer step, for annealing.
    """
    logp = streams.logp.float() if streams.logp.dtype.itemsize < 4 else streams.logp
    loss = logp.new_zeros(())
    metrics: dict[str, Tensor] = {}

    def add(name: str, values: Tensor, lengths: Tensor, aggregate: Aggregate, denominator: int) -> Tensor:
        if aggregate == "sequence_mean":
            values = values / lengths
        value = values.sum() / max(1, denominator)
        metrics[name] = value.detach()
        return loss + value

    if (s := objective.surrogate) is not None:
        on = streams.advantage != 0
        new, old, advantage = logp[on], streams.behaviour_logp[on], streams.advantage[on]
        if s.clip_low is None or s.clip_high is None:
            low, high = 0.0, math.inf
            values = importance_surrogate(new, old, advantage)
        else:
            low, high = 1 - s.clip_low, 1 + s.clip_high
            values = clipped_surrogate(new, old, advantage, s.clip_low, s.clip_high)
        loss = add("policy_loss", values, streams.sequence_length[on], s.aggregate, denominators.surrogate)
        ratio = (new.detach() - old).exp()
        clipped = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
        metrics |= {"ratio_sum": ratio.sum(), "clipped_tokens": clipped.sum(), "policy_tokens": on.sum()}
    if (t := objective.teacher_loss) is not None:
        on = streams.teacher_weight != 0
        divergence = {"k2": k2, "k3": k3}[t.estimator](logp[on], streams.teacher_logp[on])
        values = t.at(step) * streams.teacher_weight[on] * divergence
        loss = add("teacher_loss", values, streams.sequence_length[on], t.aggregate, denominators.teacher_loss)
    if (n := objective.nll) is not None:
        loss = add("nll_loss", nll(logp), streams.sequence_length, n.aggregate, denominators.nll)
    if objective.uses_teacher:
        on = streams.teacher_logp.isfinite()
        metrics["teacher_gap_sum"] = k1(logp.detach()[on], streams.teacher_logp[on]).sum()
        metrics["scored_tokens"] = on.sum()
    return loss, metrics


def averages(sums: Mapping[str, float]) -> dict[str, float]:
    """Means from the metrics of `total`, added up over micro-batches (and processes); those without tokens are absent.

    Returns:
        `ratio` and `clip_fraction` over tokens with an advantage, `teacher_gap` (k1, nats, student minus teacher,
        unweighted) over tokens the teacher scored, and the losses as they are.
    """
    out = {name: value for name, value in sums.items() if name in ("policy_loss", "teacher_loss", "nll_loss")}
    for name, over, count in (
        ("ratio", "ratio_sum", "policy_tokens"),
        ("clip_fraction", "clipped_tokens", "policy_tokens"),
        ("teacher_gap", "teacher_gap_sum", "scored_tokens"),
    ):
        if sums.get(count, 0) > 0:
            out[name] = sums[over] / sums[count]
    return out
