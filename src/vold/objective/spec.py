"""The objective of a recipe: a preset, a variant of it, and any of its terms overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from vold.errors import ConfigError
from vold.objective.custom import try_function
from vold.objective.custom_loss import try_estimator, try_token_loss
from vold.objective.options import Mix, Options
from vold.objective.preset import merged
from vold.objective.presets import PRESETS, Method
from vold.objective.terms import (
    EntropyBonus,
    Nll,
    OutcomeAdvantage,
    OwnLoss,
    ReferenceKl,
    Surrogate,
    TeacherAdvantage,
    TeacherLoss,
    TeacherTerm,
)
from vold.types.named import is_named

Contrast = Literal["base", "blind"]


@dataclass(frozen=True)
class Needs:
    """What an objective asks of its teacher beside the log-prob of each sampled token.

    `candidates`: log-probs at as many of the student's likeliest ids. `top_k`: as many of the teacher's own likeliest
    ids with their log-probs. `logits`: whole distributions. `contrast`: a second log-prob of each sampled token, by the
    model that the teacher was trained from, or by the teacher where it is not shown the picture.

    Example:
        >>> Needs(logp=True, candidates=8).words
        "the sampled token's log-prob, log-probs at the student's 8 likeliest tokens"
    """

    logp: bool = False
    candidates: int = 0
    top_k: int = 0
    logits: bool = False
    contrast: Contrast | None = None

    @property
    def words(self) -> str:
        """The same in words."""
        said = [
            (self.logp, "the sampled token's log-prob"),
            (self.candidates, f"log-probs at the student's {self.candidates} likeliest tokens"),
            (self.top_k, f"its own {self.top_k} likeliest tokens"),
            (self.logits, "full logits"),
            (self.contrast == "base", "the sampled token's log-prob by its own base"),
            (self.contrast == "blind", "the sampled token's log-prob without the picture"),
        ]
        return ", ".join(text for on, text in said if on) or "nothing"


class Objective(Options):
    """A preset by `method`, and any term of it overridden beside it; null leaves a term out.

    Example:
        >>> o = Objective.model_validate({"method": "vold", "teacher_loss": {"coefficient": 0.5}})
        >>> o.teacher_loss.coefficient, o.teacher_loss.mask
        (0.5, 'failed')
        >>> Objective.model_validate({"method": "vold", "teacher_loss": None}).uses_teacher
        False
    """

    method: Method | None = "vold"
    """The preset to start from (`vold methods` lists them); null starts from no terms."""
    reading: str | None = None
    """Another reading of the method, where there is one (`vold methods METHOD` lists them)."""
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
    reference: ReferenceKl | None = None
    """The KL to the model that the stage began with."""
    entropy: EntropyBonus | None = None
    """A bonus for entropy."""
    mix: Mix | None = None
    """The teacher's traces among the student's rollouts."""
    own_loss: OwnLoss | None = None
    """A loss of the user's own."""
    contrast: Contrast | None = None
    """A second log-prob of every token that the teacher scores (`Rollout.contrast_logp`), for weights and for
    `against: reference`. `base`: of the model that the teacher was trained from (`teacher.base`). `blind`: of the
    teacher itself, shown the task without its pictures. Absent: `base` with `against: reference`, else none."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        method = data.get("method", "vold") if isinstance(data, dict) else None
        if isinstance(data, dict) and method is None and data.get("reading") is not None:
            raise ConfigError("a reading is one of a method", got=str(data["reading"]), fix="name the method as well")
        if not isinstance(method, str) or method not in PRESETS:
            return data
        preset, reading = PRESETS[method], data.get("reading")
        if reading is None:
            return merged(preset.terms, data)
        if not isinstance(reading, str) or reading not in preset.variants:
            known = ", ".join(preset.variants) or "it has one reading only"
            raise ConfigError(f"{method} has no such reading", got=str(reading), fix=f"readings: {known}")
        return merged(merged(preset.terms, preset.variants[reading].terms), data)

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
        if not any((self.surrogate, self.teacher_loss, self.nll, self.own_loss)):
            raise ConfigError("this objective has no loss", fix=f"start from a method: {', '.join(PRESETS)}")
        if self.mix is not None:
            self._mixable()
        return self

    @model_validator(mode="after")
    def _k1_is_an_advantage(self) -> Objective:
        if self.reference is not None and self.reference.estimator == "k1" and self.surrogate is None:
            raise ConfigError("k1 is taken off the advantage, and nothing uses that", fix="set reference.estimator: k3")
        return self

    def _mixable(self) -> None:
        loss = self.teacher_loss
        if loss is None or loss.mask != "none":
            raise ConfigError(
                "the teacher's traces are learnt from through a teacher loss on every rollout",
                got="mix without one" if loss is None else f"teacher_loss.mask {loss.mask}",
                fix="add `teacher_loss: {mask: none}`, or set `mix: null`",
            )
        if loss.top_k is not None and loss.top_k.support == "student":
            raise ConfigError(
                "the student's candidates are noted as it samples, and the teacher's traces were not sampled by it",
                got="top_k.support student with mix",
                fix="set top_k.support: teacher, or mix: null",
            )

    @property
    def teacher_terms(self) -> tuple[TeacherTerm, ...]:
        """The terms that the teacher's log-probs enter."""
        own = self.own_loss if self.own_loss is not None and self.own_loss.mask is not None else None
        return tuple(term for term in (self.teacher_advantage, self.teacher_loss, own) if term is not None)

    @property
    def uses_teacher(self) -> bool:
        """Whether any term needs the teacher's log-probs."""
        return bool(self.teacher_terms)

    @property
    def learns_everywhere(self) -> bool:
        """Whether a term teaches at every token of the student's rollouts, with an advantage or without."""
        own = any(term is not None for term in (self.entropy, self.own_loss, self.nll))
        return own or (self.reference is not None and self.reference.is_loss)

    @property
    def token_separable(self) -> bool:
        """Whether the loss of a token depends on the log-probs of no other token."""
        return self.own_loss is None and (self.surrogate is None or self.surrogate.ratio == "token")

    @property
    def needs(self) -> Needs:
        """What the teacher must supply."""
        advantage, loss = self.teacher_advantage, self.teacher_loss
        candidates = advantage.prefix.top_k if advantage is not None and advantage.prefix is not None else 0
        own, logits = 0, False
        if loss is not None and loss.over_vocabulary:
            logits = loss.top_k is None
            if loss.top_k is not None and loss.top_k.support == "student":
                candidates = max(candidates, loss.top_k.k)
            elif loss.top_k is not None:
                own = loss.top_k.k
        shift = advantage is not None and advantage.against == "reference"
        return Needs(self.uses_teacher, candidates, own, logits, self.contrast or ("base" if shift else None))

    def try_functions(self) -> list[str]:
        """Load and try the user's own masks, weights and losses. Returns their names.

        Raises:
            ConfigError: one cannot be used.
        """
        tried = []
        for term in (self.outcome, *self.teacher_terms):
            if term is not None and term.mask is not None and is_named(term.mask):
                try_function(term.mask, term.mask_options, per_token=False)
                tried.append(term.mask)
        for weighed in (self.teacher_advantage, self.teacher_loss):
            if weighed is not None and weighed.weight is not None:
                try_function(weighed.weight, weighed.weight_options, per_token=True)
                tried.append(weighed.weight)
        if self.teacher_loss is not None and is_named(self.teacher_loss.estimator):
            try_estimator(self.teacher_loss.estimator)
            tried.append(self.teacher_loss.estimator)
        if self.own_loss is not None:
            try_token_loss(self.own_loss.function, self.own_loss.options)
            tried.append(self.own_loss.function)
        return tried
