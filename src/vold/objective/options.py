"""Options of loss terms: one small frozen model for each published device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from vold.errors import ConfigError
from vold.objective.prefix_teach import BOUNDARY, MarginForm
from vold.objective.uni_opd import Direction, Scope, Statistic

if TYPE_CHECKING:
    from collections.abc import Iterator


class Options(BaseModel):
    """Base of loss terms and their options, and of every section of a recipe: frozen, closed to unknown keys, and of
    finite numbers, which `true` is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_true(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts `True` as 1."""
        inner = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else (value,)
        if any(isinstance(one, bool) for one in inner):
            kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ConfigError("should be a number", got=str(value).lower(), fix="write a number, such as 1")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


class Overlong(Options):
    """DAPO's soft penalty for responses near the token budget; see `vold.objective.advantages.overlong_penalty`."""

    buffer: float = Field(gt=0, le=1)
    """Share of `sampling.max_new_tokens` over which the penalty grows: 0.2 in DAPO, 0.05 in SOD."""
    factor: float = Field(1.0, gt=0)
    """The penalty at the full budget."""


class ToolReward(Options):
    """SOD's bonus for trying tools when the answer is wrong; see `vold.objective.advantages.tool_reward`."""

    per_call: float = Field(0.1, ge=0)
    """Added to a negative reward for every tool call."""
    ceiling: float = Field(-0.6, lt=0)
    """The highest a negative reward can become."""


class Steps(Options):
    """SOD's weight of every step of a rollout; see `vold.objective.advantages.step_weights`."""

    eps: float = Field(1e-6, gt=0)
    """Keeps the quotient finite."""
    delta: float = Field(0.2, ge=0)
    """How far above 1 a weight may go: 0.2 in the paper and its script, 0.5 as default of its library."""


class Balance(Options):
    """Uni-OPD's online balancing of correct and incorrect rollouts; see `vold.objective.uni_opd.balance`."""

    ratio: float | Literal["correct_only"] = 1.0
    """Correct to incorrect; 0 keeps the incorrect alone."""
    scope: Scope = "group"
    """Balance the rollouts of each prompt, or those of the step."""

    @field_validator("ratio")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if isinstance(value, float) and value < 0:
            raise ConfigError("a ratio of rollouts cannot be negative", got=str(value), fix="use 0 or more")
        return value


class Margin(Options):
    """Uni-OPD's margin between correct and incorrect rollouts; see `vold.objective.uni_opd`."""

    form: Literal["shift", "broadcast", "mask"] = "shift"
    """`shift`: every token reward of a rollout moves by the same amount, as in the released code. `broadcast`: every
    token gets the moved mean return instead of its own reward, as in the paper. `mask`: offending rollouts are
    dropped greedily."""
    delta: float = Field(0.4, ge=0)
    """The margin wanted, in nats a token."""
    scope: Scope = "group"
    """Compare the rollouts of each prompt, or those of the step."""
    statistic: Statistic = "mean"
    """The gap between class means, or between the lowest correct and the highest incorrect return."""
    direction: Direction = "both"
    """Who is moved; not used by `mask`."""


class Prefix(Options):
    """Cut of the teacher's supervision, in the style of Prefix-Teach; see `vold.objective.prefix_teach`."""

    top_k: int = Field(8, ge=2)
    """The student's likeliest tokens over which the teacher's margin is taken. The paper's K is not known."""
    margin: MarginForm = "log_gap"
    """How the margin is read."""
    boundary: str = BOUNDARY
    """Regular expression of what ends a segment."""

    @field_validator("boundary")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            if re.compile(value).match(""):
                raise ConfigError("a boundary that matches nothing at all ends every segment", got=repr(value))
        except re.error as error:
            raise ConfigError("this boundary is no regular expression", got=repr(value), fix=str(error)) from error
        return value


class Future(Options):
    """Credit for what follows a token; see `vold.objective.advantages.future_sums`."""

    discount: float = Field(1.0, ge=0, le=1)
    """Factor of each later token's reward."""
    from_next: bool = False
    """Leave out the token's own reward, which a full-vocabulary loss accounts for."""
    length_normalised: bool = False
    """Divide by the number of addends."""
    per: Literal["action", "position"] = "action"
    """What the discount counts: the model's own tokens, or every token up to the later one, a tool's as well."""


class TopK(Options):
    """A divergence over K candidates in place of the whole vocabulary."""

    k: int = Field(ge=2)
    """How many candidates at every position."""
    support: Literal["student", "teacher"] = "student"
    """Whose likeliest tokens they are."""
    form: Literal["renormalise", "stop_gradient"] = "renormalise"
    """`renormalise`: both distributions are scaled to sum to 1 over the candidates. `stop_gradient` (reverse KL only):
    left as they are, with the student's weights detached; see `vold.objective.losses.stopped_reverse_kl`."""


class Band(Options):
    """Ratios of trainer to sampler outside of which a token teaches nothing (MiMo)."""

    low: float = Field(0.5, ge=0, lt=1)
    """Smallest ratio π_θ/π_old that still teaches. The paper's value is not known to us."""
    high: float = Field(2.0, gt=1)
    """Largest one."""


class Mix(Options):
    """GKD's mixture of rollouts and the teacher's traces within each step; see `vold.training.trace_mixture`."""

    student_share: float = Field(0.5, ge=0, le=1)
    """λ: the weight of the student's rollouts in the teacher loss, and the share of a step's prompts it answers
    itself. The other prompts come with the run's traces."""
