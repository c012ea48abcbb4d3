"""The terms an objective is made of, each a small frozen model. `vold.objective` puts them together."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vold.errors import ConfigError
from vold.objective.losses import OVER_VOCABULARY, SAMPLED
from vold.objective.options import Balance, Band, Future, Margin, Options, Overlong, Prefix, Steps, ToolReward, TopK
from vold.types.named import is_named

if TYPE_CHECKING:
    from collections.abc import Sequence

Aggregate = Literal["token_mean", "token_sum", "sequence_mean", "budget_mean"]
"""How per-token values become one number. `token_mean`: their sum over the action tokens of all rollouts of the step.
`token_sum`: summed within a rollout, mean over rollouts (Eq. 6 to the letter). `sequence_mean`: mean within a rollout,
then mean over rollouts. `budget_mean`: as `token_sum`, divided by `sampling.max_new_tokens`."""

Mask = Literal["none", "failed", "passed", "group_failed", "zero_score"]
"""The weight M of a rollout, from scores in [0, 1]. `none`: 1. `failed`: 1 - score, VOLD's (1 - r). `passed`: score.
`group_failed`: 1 - best score of the group, so that only prompts nobody solved count (KDRL). `zero_score`: 1 where the
score is 0, else 0 (HyperEyes)."""


def _named(value: object, what: str, known: Sequence[str]) -> object:
    if not isinstance(value, str) or value in known or is_named(value):
        return value
    close = difflib.get_close_matches(value, known, n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(known)}, or my_module:function"
    raise ConfigError(f"there is no such {what}", got=value, fix=fix)


def _mask(value: object) -> object:
    return _named(value, "mask", get_args(Mask))


def _estimator(value: object) -> object:
    return _named(value, "estimator", [name for name in (*SAMPLED, *OVER_VOCABULARY) if name != "k1"])


def _function(value: object) -> object:
    if not isinstance(value, str) or is_named(value):
        return value
    raise ConfigError("this names a function", got=value, fix="write my_module:function")


MaskName = Annotated[str, BeforeValidator(_mask)]
"""One of `Mask`, or `my_module:function` (`vold.objective.custom.RolloutMask`)."""
FunctionName = Annotated[str, BeforeValidator(_function)]
"""`my_module:function` (`vold.objective.custom.TokenWeight`)."""
EstimatorName = Annotated[str, BeforeValidator(_estimator)]
"""An estimator of `vold.objective.losses`, or `my_module:function` (`vold.objective.custom_loss.SampledEstimator`)."""
FunctionArguments = dict[str, float | str]
"""Further arguments of a function, by name."""


class OutcomeAdvantage(Options):
    """The verifier's verdict as an advantage, one number for all tokens of a rollout."""

    weight: float = 1.0
    """The factor a."""
    normalise: Literal["std", "none", "leave_one_out"] = "std"
    """`std`: (reward - group mean) / (sample std + eps), GRPO. `none`: without the division. `leave_one_out`: reward
    minus the mean of the others (RLOO)."""
    eps: float = Field(1e-6, gt=0)
    """Added to the standard deviation."""
    signed: bool = False
    """The reward is 2 · score - 1 instead of the score: -1 for a wrong answer."""
    tool_reward: ToolReward | None = None
    """Bonus for trying tools."""
    overlong: Overlong | None = None
    """Penalty for responses near the token budget."""
    constant: float | None = None
    """This number in the place of the verdict, for every rollout: a control that learns from no one."""
    mask: MaskName | None = None
    """A factor of each rollout, as `teacher_advantage.mask`; absent: 1."""
    mask_options: FunctionArguments = Field(default_factory=dict)
    """Further arguments of a mask that is a function."""

    @model_validator(mode="after")
    def _negative_somewhere(self) -> OutcomeAdvantage:
        if self.tool_reward is not None and not self.signed:
            raise ConfigError(
                "the tool bonus is for negative rewards, and scores have none",
                got="tool_reward with signed: false",
                fix="set signed: true, or tool_reward: null",
            )
        return self


class Annealed(Options):
    """A coefficient that may fall linearly: max(coefficient - anneal_per_step · step, final_coefficient)."""

    coefficient: float = Field(ge=0)
    """Its value at step 0. 0 still asks the teacher, to log its gap."""
    final_coefficient: float = Field(0.0, ge=0)
    """Its lowest value, never above `coefficient`."""
    anneal_per_step: float = Field(0.0, ge=0)
    """How much it falls a step; 0 keeps it constant."""

    @model_validator(mode="after")
    def _falls(self) -> Annealed:
        if self.final_coefficient > self.coefficient:
            raise ConfigError(
                "a coefficient cannot anneal upwards",
                got=f"coefficient {self.coefficient}, final_coefficient {self.final_coefficient}",
                fix="lower final_coefficient, or set it to 0 along with anneal_per_step",
            )
        return self

    def at(self, step: int) -> float:
        """The coefficient of 0-based `step`."""
        return max(self.coefficient - self.anneal_per_step * step, self.final_coefficient)


class TeacherAdvantage(Annealed):
    """The teacher's opinion as an advantage, c · M · W · P · (R_t + s) with R_t = log π_T - log π_old, subject to ratio
    and clip. A token whose teacher log-prob is not finite has R_t = 0."""

    coefficient: float = Field(1.0, ge=0)
    """The factor c at step 0."""
    mask: MaskName = "none"
    """M: which rollouts the teacher is asked about. `none` (all), `failed`, `passed`, `group_failed`, `zero_score`, or
    `my_module:function`."""
    mask_options: FunctionArguments = Field(default_factory=dict)
    """Further arguments of a mask that is a function."""
    balance: Balance | None = None
    """A second factor of M: drop rollouts until correct and incorrect ones are in proportion."""
    margin: Margin | None = None
    """s: move returns until correct rollouts lead by a margin."""
    steps: Steps | None = None
    """W: weigh each step of a rollout by how much the student has drifted."""
    weight: FunctionName | None = None
    """A second factor of W: `my_module:function`, a number a token."""
    weight_options: FunctionArguments = Field(default_factory=dict)
    """Its further arguments."""
    prefix: Prefix | None = None
    """P: the teacher term is cut off after a prefix of the response."""
    future: Future | None = None
    """Put a sum over later tokens in the place of R_t."""
    gate: float | None = Field(None, gt=0)
    """A token teaches nothing at all where |log π_θ - log π_T| reaches this many nats (Uni-OPD: 10)."""
    against: Literal["behaviour", "current", "reference"] = "behaviour"
    """What the teacher is compared with: the sampler's log-prob, the trainer's at the time of the update (MiMo), or the
    objective's `contrast`: R_t = log π_T - log π_ref, the policy shift where that is the teacher's own base."""
    extrapolation: float | None = Field(None, gt=0)
    """λ, with `against: reference`: R_t = λ (log π_T - log π_ref) - (log π_old - log π_ref). 1 is `against: behaviour`;
    above 1 the student is led beyond its teacher (ExOPD)."""

    @model_validator(mode="after")
    def _extrapolates_from_a_reference(self) -> TeacherAdvantage:
        if self.extrapolation is not None and self.against != "reference":
            raise ConfigError(
                "a reward is extrapolated from a reference",
                got=f"extrapolation {self.extrapolation:g} with against: {self.against}",
                fix="set against: reference, or extrapolation: null",
            )
        return self

    @model_validator(mode="after")
    def _live_rewards_are_plain(self) -> TeacherAdvantage:
        if self.against == "current" and (self.margin is not None or self.future is not None):
            raise ConfigError(
                "margin and future sums need rewards that are known before the update",
                got="against: current",
                fix="set against: behaviour",
            )
        return self


class Surrogate(Options):
    """The policy-gradient term that turns advantages into a loss."""

    clip_low: float | None = Field(0.2, ge=0, le=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float | None = Field(0.3, ge=0)
    """The ratio is clipped above at 1 + clip_high. Both null: no clipping."""
    dual_clip: float | None = Field(None, gt=1)
    """Where the advantage is negative, the ratio is clipped above at this: a second bound, for tokens that the student
    has come to like much better since it sampled them. Null: none."""
    ratio: Literal["token", "sequence"] = "token"
    """π_θ/π_old of each token, or the geometric mean over the response (GSPO)."""
    band: Band | None = None
    """Tokens whose ratio lies outside teach nothing."""
    importance_cap: float | None = Field(None, gt=0)
    """C of truncated importance sampling: the ratio is taken to the trainer's own log-probs when the step began, and
    every token is weighed by min(π_trainer / π_sampler, C). Null: the ratio is taken to the sampler's."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged."""

    @model_validator(mode="after")
    def _one_answer_to_the_sampler(self) -> Surrogate:
        if self.importance_cap is not None and self.band is not None:
            raise ConfigError(
                "band and importance_cap are two answers to one question, a sampler that differs from the trainer",
                got=f"band with importance_cap {self.importance_cap:g}",
                fix="set one of them to null",
            )
        return self

    @model_validator(mode="after")
    def _both_or_neither(self) -> Surrogate:
        if (self.clip_low is None) != (self.clip_high is None):
            raise ConfigError(
                "only one side of the ratio would be clipped",
                got=f"clip_low {self.clip_low}, clip_high {self.clip_high}",
                fix="give both bounds, or set both to null for an unclipped surrogate",
            )
        if self.dual_clip is not None and (self.clip_high is None or self.dual_clip <= 1 + self.clip_high):
            raise ConfigError(
                "the dual clip is a bound beyond the upper clip",
                got=f"dual_clip {self.dual_clip}, clip_high {self.clip_high}",
                fix="give clip_low and clip_high, and a dual_clip above 1 + clip_high (3), or set dual_clip: null",
            )
        return self


class TeacherLoss(Annealed):
    """The teacher as a loss of its own, β · M · W · D(student, teacher) at every token."""

    estimator: EstimatorName = "k2"
    """On the sampled token: `k2` has the gradient of KL(student‖teacher), the reverse KL of VOLD and KDRL; `k3` that of
    KL(teacher‖student); `my_module:function` is one of your own. Tokens that older weights have sampled count by the
    ratio π_θ/π_old, 2 at most, without gradient. Over the vocabulary, or over `top_k` candidates:
    `reverse_kl`, `forward_kl`, and `jsd`, GKD's mixture of the two."""
    teacher_share: float = Field(0.5, ge=0, le=1)
    """GKD's β, used by `jsd`: the teacher's share of the mixture both are compared with; 0 is forward KL, 1 reverse."""
    top_k: TopK | None = None
    """Candidates in place of the whole vocabulary; without them the teacher must give full logits."""
    coefficient: float = Field(0.1, ge=0)
    """The factor β at step 0. The VOLD paper gives 0.1 (section 4.1) and 1e-3 (supplementary table 4) and does not say
    whether tokens are summed, as its Eq. 6 does, or averaged, as GRPO code does. The two may be one setting under two
    normalisations: 1e-3 on a token sum over 1,000-token responses weighs like 1.0 on a token mean, 0.1 on a mean like
    1e-4 on a sum. The default takes the main text's 0.1 with `token_mean`; sweep it together with `aggregate`."""
    mask: MaskName = "failed"
    """M: which rollouts the teacher is asked about; `failed` is VOLD's (1 - r). As `teacher_advantage.mask`."""
    mask_options: FunctionArguments = Field(default_factory=dict)
    """Further arguments of a mask that is a function."""
    weight: FunctionName | None = None
    """W: `my_module:function`, a number a token."""
    weight_options: FunctionArguments = Field(default_factory=dict)
    """Its further arguments."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged; masked rollouts count in the denominator."""

    @field_validator("estimator", mode="before")
    @classmethod
    def _not_k1(cls, value: object) -> object:
        if value == "k1":
            raise ConfigError(
                "k1 teaches nothing as a loss: its back-propagated gradient has zero mean",
                got="k1",
                fix="use k2 (reverse KL), or put the teacher in `teacher_advantage`, which is k1 done right",
            )
        return value

    @model_validator(mode="after")
    def _candidates_where_they_mean_something(self) -> TeacherLoss:
        if self.top_k is not None and not self.over_vocabulary:
            raise ConfigError(
                f"{self.estimator} is taken on the sampled token, so it has no use for candidates",
                got=f"top_k with {self.estimator}",
                fix="set estimator: reverse_kl, forward_kl or jsd, or top_k: null",
            )
        if self.top_k is not None and self.top_k.form == "stop_gradient" and self.estimator != "reverse_kl":
            raise ConfigError(
                "only reverse KL weighs by the student, whose weights are to be stopped",
                got=f"stop_gradient with {self.estimator}",
                fix="set form: renormalise",
            )
        return self

    @property
    def over_vocabulary(self) -> bool:
        """Whether whole distributions, or candidates of them, are compared."""
        return self.estimator in OVER_VOCABULARY


class OwnLoss(Annealed):
    """A loss term of the user's own, β · L of every token of all rollouts."""

    function: FunctionName
    """`my_module:function` (`vold.objective.custom_loss.TokenLoss`)."""
    options: FunctionArguments = Field(default_factory=dict)
    """Its further arguments."""
    coefficient: float = Field(1.0, ge=0)
    """The factor β at step 0."""
    mask: MaskName | None = None
    """The rollouts that the teacher is asked about for it; absent: none."""
    mask_options: FunctionArguments = Field(default_factory=dict)
    """Further arguments of a mask that is a function."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged."""


class Nll(Options):
    """Plain likelihood of the given tokens, the cold start's loss."""

    aggregate: Aggregate = "token_mean"
    """How tokens are averaged."""


class ReferenceKl(Options):
    """The KL to the reference, β · D(π_θ, π_ref): the model that the stage began with, which stays as it is."""

    coefficient: float = Field(ge=0)
    """The factor β. 0 teaches nothing and still logs the KL."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """Of KL(student‖reference) on the sampled token. `k3` as a loss is GRPO's; `k2` has the gradient of the reverse KL;
    `k1` is taken off the advantage, -β (log π_old - log π_ref), as in PPO, and is subject to ratio and clip."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged: those of all of the student's rollouts. Not used by `k1`."""

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss of its own that moves the weights."""
        return self.estimator != "k1" and self.coefficient > 0

    @property
    def is_advantage(self) -> bool:
        """Whether it moves the weights as a part of the advantage."""
        return self.estimator == "k1" and self.coefficient > 0


class EntropyBonus(Options):
    """The student's entropy H at every token, over the ids that can be sampled, as a loss -c · H."""

    coefficient: float = Field(gt=0)
    """The factor c."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged: those of all rollouts."""


MaskedTerm = OutcomeAdvantage | TeacherAdvantage | TeacherLoss | OwnLoss
TeacherTerm = TeacherAdvantage | TeacherLoss | OwnLoss
"""Terms that the teacher's log-probs may enter."""
