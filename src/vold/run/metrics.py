"""Rows of metrics.jsonl, one a step. docs/metrics.md is written from the docstrings of their fields.

A value that a step does not have (no teacher, no token that learns) is None here and absent in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vold.run.files import bad_row
from vold.run.records import Count, flat

if TYPE_CHECKING:
    from pathlib import Path

METRICS = "metrics.jsonl"
SCORE = "score_"
"""How the keys of single scores begin."""
TRACKING = "tracking.json"
"""Beside it: under which id trackers know this stage of this run."""
MEND_METRICS = (
    "put the file back from a copy, or delete line {line} and the hidden file .metrics.jsonl.sums beside it, "
    "and that step is missing"
)
"""What to do about a damaged row where nobody trains."""


@dataclass(frozen=True, kw_only=True)
class SftRow:
    """One step of `sft`."""

    step: Count
    """The step, from 0. Unit: count. Made by training/sft.py:sft."""
    loss: float
    """Mean negative log-likelihood of the step's own tokens, before its update. Unit: nats per token. Made by
    training/sft.py:accumulate."""
    grad_norm: float
    """Norm of the gradient before it is clipped. Unit: none. Made by training/optim.py:apply_update."""
    lr: float
    """Learning rate of the step. Unit: none. Made by training/optim.py:learning_rate."""
    tokens: Count
    """Tokens in the loss: those the teacher wrote itself, not a tool. Unit: tokens. Made by
    training/sft.py:accumulate."""
    seconds: float
    """Time of the step. Unit: seconds. Made by training/sft.py:sft."""


@dataclass(frozen=True, kw_only=True)
class UpdateMetrics:
    """The updates of a step: loss, gradient, what the tokens that learn look like before each."""

    step: Count
    """The step, from 0. Unit: count. Made by training/step.py:Tally.metrics."""
    loss: float
    """Loss of the whole step, the sum of the terms below; of several mini-batches their mean, as for each term. Unit:
    as its terms. Made by objective/loss.py:total."""
    grad_norm: float
    """Norm of the gradient before it is clipped, the mean of several updates; 0 where nothing was to be learnt. Unit:
    none. Made by training/optim.py:apply_update."""
    lr: float
    """Learning rate of the step. Unit: none. Made by training/optim.py:learning_rate."""
    updates: Count = 1
    """Updates of the weights: mini-batches with something to learn. Unit: count. Made by training/step.py:update."""
    entropy: float | None = None
    """Mean entropy of the student at the tokens it was trained on. Unit: nats. Made by
    training/step.py:Tally.metrics."""
    mismatch: float | None = None
    """Largest |x|, x = log-prob by the trainer minus log-prob by the sampler, of the sampled tokens before the first
    update; with `distill.ahead`, what the step before has changed is in it. Unit: nats. Made by
    engines/mismatch.py:Mismatch.row."""
    mismatch_mean: float | None = None
    """Mean |x| of the same. Unit: nats. Made by engines/mismatch.py:Mismatch.row."""
    mismatch_k1: float | None = None
    """KL(sampler || trainer), estimated as the mean of -x. Unit: nats per token. Made by
    engines/mismatch.py:Mismatch.row."""
    mismatch_kl: float | None = None
    """KL(sampler || trainer), estimated as the mean of exp(x) - 1 - x; `distill.mismatch.limit` is compared with it.
    Unit: nats per token. Made by engines/mismatch.py:Mismatch.row."""
    policy_loss: float | None = None
    """The surrogate's addend of the loss. Unit: none. Made by objective/loss.py:total."""
    teacher_loss: float | None = None
    """The teacher term's addend of the loss, coefficient and weights included. Unit: nats. Made by
    objective/loss.py:total."""
    nll_loss: float | None = None
    """The negative log-likelihood's addend of the loss. Unit: nats. Made by objective/loss.py:total."""
    reference_loss: float | None = None
    """The addend of the KL to the reference, coefficient included. Unit: nats. Made by objective/loss.py:total."""
    entropy_loss: float | None = None
    """The addend of the entropy bonus, below 0, coefficient included. Unit: nats. Made by objective/loss.py:total."""
    own_loss: float | None = None
    """The addend of the loss of your own (`own_loss`), coefficient included. Unit: its own. Made by
    objective/loss.py:total."""
    reference_kl: float | None = None
    """KL(student || reference) by k3, mean over the tokens that the reference has scored. Unit: nats per token. Made by
    objective/loss.py:averages."""
    importance: float | None = None
    """Mean weight min(pi_trainer / pi_sampler, C) of truncated importance sampling (`surrogate.importance_cap`). Unit:
    none. Made by objective/loss.py:averages."""
    importance_capped: float | None = None
    """Share of tokens with an advantage whose weight is C. Unit: 0 to 1. Made by objective/loss.py:averages."""
    ratio: float | None = None
    """Mean of pi_student / pi_behaviour over tokens with an advantage. Unit: none. Made by
    objective/loss.py:averages."""
    clip_fraction: float | None = None
    """Share of tokens with an advantage whose gradient the clip cuts off. Unit: 0 to 1. Made by
    objective/loss.py:averages."""
    clip_high_fraction: float | None = None
    """The part of these whose ratio is above the upper bound, or the dual clip. Unit: 0 to 1. Made by
    objective/loss.py:averages."""
    clip_low_fraction: float | None = None
    """The part of these whose ratio is below the lower bound. Unit: 0 to 1. Made by objective/loss.py:averages."""
    teacher_gap: float | None = None
    """Mean of log pi_student - log pi_teacher over the tokens that the teacher scored, unweighted. Unit: nats per
    token. Made by objective/loss.py:averages."""
    dropped_fraction: float | None = None
    """Share of tokens with an advantage that gate or band took out; absent where none. Unit: 0 to 1. Made by
    objective/loss.py:averages."""
    trained_tokens: int
    """Tokens that went through the updates, of rollouts with a signal, in every epoch anew. Unit: tokens. Made by
    training/step.py:Tally.metrics."""


@dataclass(frozen=True, kw_only=True)
class RolloutMetrics:
    """The rollouts of a step, the student's own where there are others too; those that further prompts have replaced
    (`distill.refill`) are among them."""

    reward: float
    """Mean score that the grader gave. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    scores: Mapping[str, float] = field(default_factory=dict, metadata=flat(SCORE))
    """Mean of each score that the reward is made of, by its name ([Rewards](extending.md#rewards)); absent where it is
    one verdict. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    share_wrong: float
    """Rollouts whose answer was read and is wrong. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    share_unparsed: float
    """Rollouts without an answer that can be read. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    share_truncated: float
    """Rollouts that ran into their token budget. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    share_timed_out: float
    """Rollouts whose grading ran out of time or memory. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    groups_all_pass: float
    """Prompts all of whose rollouts score 1. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    groups_all_fail: float
    """Prompts all of whose rollouts score 0. Unit: 0 to 1. Made by training/rollout_log.py:describe."""
    groups_refilled: Count | None = None
    """Groups without a signal whose place further prompts have taken; absent without `distill.refill`. Unit: count.
    Made by training/rollout.py:StudentRollouts.sample."""
    groups_silent: Count | None = None
    """Groups without a signal that are left. Unit: count. Made by training/rollout.py:StudentRollouts.sample."""
    staleness: Count = 0
    """Steps whose updates came between the sampling of the oldest rollout and this step. Unit: count. Made by
    training/turns.py:staleness."""
    mean_tokens: float
    """Mean length of a rollout. Unit: tokens. Made by training/rollout_log.py:describe."""
    rollout_tokens: int
    """Length of all rollouts together. Unit: tokens. Made by training/rollout_log.py:describe."""
    teacher_tokens: int
    """Tokens that the teacher was asked about. Unit: tokens. Made by training/rollout_log.py:describe."""
    aligned_share: float | None = None
    """Share of these that the teacher could score; below 1 only where it cuts text into other tokens. Unit: 0 to 1.
    Made by engines/teachers/aligned.py:aligned_share."""
    unscored_tokens: int | None = None
    """Tokens that the teacher was asked about, has a token for, and gave no finite log-prob: they have no reward and no
    loss; absent where it was asked about nothing. Unit: tokens. Made by objective/unscored.py:unscored."""
    quantize_error: float | None = None
    """Mean |log-prob of the quantised teacher - log-prob of the weights it was made from| over responses of the first
    step; measured once a run, and of the teacher with the largest. Unit: nats per token. Made by
    engines/teachers/quantize_error.py:QuantizeErrors.noted."""
    quantize_error_p99: float | None = None
    """What 99 % of the same are below. Unit: nats. Made by engines/teachers/quantize_error.py:QuantizeErrors.noted."""
    mean_reward: float | None = None
    """Mean reward with a tool reward or an overlong penalty, where the objective has one. Unit: none. Made by
    objective/credit.py:value_means."""
    mean_balance: float | None = None
    """Share of rollouts kept by `teacher_advantage.balance`. Unit: 0 to 1. Made by
    objective/credit.py:value_means."""
    mean_teacher_mask: float | None = None
    """Mean mask of the teacher reward over rollouts. Unit: weight. Made by objective/credit.py:value_means."""
    mean_return: float | None = None
    """Mean over rollouts of the mean teacher reward of their tokens, the return of Uni-OPD's margin. Unit: nats per
    token. Made by objective/credit.py:value_means."""
    mean_margin_keep: float | None = None
    """Share of rollouts that the margin's mask keeps. Unit: 0 to 1. Made by objective/credit.py:value_means."""
    mean_shift: float | None = None
    """Mean shift that the margin adds to the teacher reward. Unit: nats per token. Made by
    objective/credit.py:value_means."""
    mean_future_reward: float | None = None
    """Mean over tokens of the teacher rewards from there on (`teacher_advantage.future`). Unit: nats. Made by
    objective/credit.py:value_means."""
    mean_own_weight: float | None = None
    """Mean over tokens of your own `teacher_advantage.weight`. Unit: weight. Made by
    objective/credit.py:value_means."""
    mean_policy_shift: float | None = None
    """Mean over tokens of log pi_teacher - log pi_base, or of the teacher with and without the picture
    (`teacher_advantage.against: reference`). Unit: nats per token. Made by objective/credit.py:value_means."""
    mean_step_weight: float | None = None
    """Mean over tokens of SOD's weight of a step between tool calls. Unit: weight. Made by
    objective/credit.py:value_means."""
    mean_candidate_margin: float | None = None
    """Mean over tokens of the teacher's margin between the student's candidates (`teacher_advantage.prefix`). Unit:
    nats, or a probability with `margin: probability_gap`. Made by objective/credit.py:value_means."""
    mean_prefix: float | None = None
    """Share of tokens before the cut (`teacher_advantage.prefix`). Unit: 0 to 1. Made by
    objective/credit.py:value_means."""
    mean_cut: float | None = None
    """Mean place of the cut; the length of a rollout where there is none. Unit: tokens. Made by
    objective/credit.py:value_means."""
    mean_cut_gain: float | None = None
    """Mean of BIC_0 - BIC_1 of the best cut. Unit: none. Made by objective/credit.py:value_means."""
    mean_segments: float | None = None
    """Mean number of sentences with a margin. Unit: count. Made by objective/credit.py:value_means."""
    mean_loss_mask: float | None = None
    """Mean mask of the teacher loss over rollouts. Unit: weight. Made by objective/credit.py:value_means."""
    mean_own_loss_weight: float | None = None
    """Mean over tokens of your own `teacher_loss.weight`. Unit: weight. Made by
    objective/credit.py:value_means."""


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """Where the time of a step went."""

    seconds_sample: float
    """Sampling and grading. Unit: seconds. Made by training/distill.py:_seconds."""
    seconds_teacher: float
    """The teacher's scores and the advantages. Unit: seconds. Made by training/distill.py:_seconds."""
    seconds_update: float
    """Forward and backward passes, and the update. Unit: seconds. Made by training/distill.py:_seconds."""


@dataclass(frozen=True, kw_only=True)
class DistillRow(PhaseSeconds, RolloutMetrics, UpdateMetrics):
    """One step of `distill`.

    Example:
        >>> [c.__name__ for c in reversed(DistillRow.__mro__[1:-1])]
        ['UpdateMetrics', 'RolloutMetrics', 'PhaseSeconds']
    """

    @classmethod
    def of(cls, update: UpdateMetrics, rollouts: RolloutMetrics, seconds: PhaseSeconds) -> DistillRow:
        """One row of its three parts."""
        return cls(**vars(update), **vars(rollouts), **vars(seconds))


ROWS: Mapping[str, type[SftRow] | type[DistillRow]] = {"sft": SftRow, "distill": DistillRow}
"""What a row is, by the name of its stage."""


def refuse_gaps(steps: Iterable[object], file: Path, mend: str) -> None:
    """Refuse a list whose rows are not those of step 0, 1, 2 and so on.

    Raises:
        CheckpointError: naming the first that is not.
    """
    for n, step in enumerate(steps):
        if step != n:
            raise bad_row(file, n + 1, f"the row of step {step} where that of step {n} stands", mend=mend)
