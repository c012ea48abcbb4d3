"""The parts an objective is made of, each a small frozen model. `vold.objective` puts them together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vold.errors import ConfigError

Aggregate = Literal["token_mean", "token_sum", "sequence_mean"]
"""How per-token values become one number. `token_mean`: their sum over the action tokens of all rollouts of the step.
`token_sum`: summed within a rollout, mean over rollouts (Eq. 6 to the letter). `sequence_mean`: mean within a rollout,
then mean over rollouts."""

Mask = Literal["none", "failed", "passed", "group_failed"]
"""The weight M of a rollout, from scores in [0, 1]. `none`: 1. `failed`: 1 - score, VOLD's (1 - r). `passed`: score.
`group_failed`: 1 - best score of the group, so that only prompts nobody solved count (KDRL)."""


class Slot(BaseModel):
    """Base of the objective's parts: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class OutcomeAdvantage(Slot):
    """The verifier's verdict as an advantage, one number for all tokens of a rollout."""

    weight: float = 1.0
    """The factor a."""
    normalise: Literal["std", "none", "leave_one_out"] = "std"
    """`std`: (score - group mean) / (sample std + eps), GRPO. `none`: without the division. `leave_one_out`: score
    minus the mean of the others (RLOO)."""
    eps: float = Field(1e-6, gt=0)
    """Added to the standard deviation."""


class Annealed(Slot):
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
    """The teacher's opinion as an advantage, c · M · (log π_T - log π_old), subject to ratio and clip."""

    coefficient: float = Field(1.0, ge=0)
    """The factor c at step 0."""
    mask: Mask = "none"
    """Which rollouts the teacher is asked about."""


class Surrogate(Slot):
    """The policy-gradient term that turns advantages into a loss."""

    clip_low: float | None = Field(0.2, ge=0, le=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float | None = Field(0.3, ge=0)
    """The ratio is clipped above at 1 + clip_high. Both null: no clipping."""
    aggregate: Aggregate = "token_mean"
    """How tokens are averaged."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Surrogate:
        if (self.clip_low is None) != (self.clip_high is None):
            raise ConfigError(
                "only one side of the ratio would be clipped",
                got=f"clip_low {self.clip_low}, clip_high {self.clip_high}",
                fix="give both bounds, or set both to null for an unclipped surrogate",
            )
        return self


class TeacherLoss(Annealed):
    """The teacher as a loss of its own, β · M · D(student, teacher) on the sampled tokens."""

    estimator: Literal["k2", "k3"] = "k2"
    """`k2` has the gradient of KL(student‖teacher), the reverse KL of VOLD and KDRL; `k3` that of
    KL(teacher‖student)."""
    coefficient: float = Field(0.1, ge=0)
    """The factor β at step 0. The VOLD paper gives 0.1 (section 4.1) and 1e-3 (supplementary table 4) and does not say
    whether tokens are summed, as its Eq. 6 does, or averaged, as GRPO code does. The two may be one setting under two
    normalisations: 1e-3 on a token sum over 1,000-token responses weighs like 1.0 on a token mean, 0.1 on a mean like
    1e-4 on a sum. The default takes the main text's 0.1 with `token_mean`; sweep it together with `aggregate`."""
    mask: Mask = "failed"
    """Which rollouts the teacher is asked about; `failed` is VOLD's (1 - r)."""
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


class Nll(Slot):
    """Plain likelihood of the given tokens, the cold start's loss."""

    aggregate: Aggregate = "token_mean"
    """How tokens are averaged."""
