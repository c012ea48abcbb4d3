"""Sections of a recipe that name sets of problems: made here, from a file, published, several at once, or balanced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vold.graders import known_grader
from vold.run.model_sections import RolloutServer, Sampling, Section

GraderName = Annotated[str, AfterValidator(known_grader)]

DatasetKind = Literal[
    "mixture_of_thoughts", "orz57k", "deepmath", "openthoughts", "openthoughts3", "geometry3k", "mmk12", "virl39k"
]


class DigitTasksSpec(Section):
    """Problems of the demo world."""

    kind: Literal["digits"]
    """Selects this source."""
    split: Literal["train", "select", "test"]
    """Splits share no row of digits; image forms of `select` and `test` share no handwriting."""
    form: Literal["text", "image"] = "text"
    """Digits written out, or shown as handwriting."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""


class CallTasksSpec(Section):
    """Problems of the demo world for tools; the recipe needs an `environment` with fenced calls."""

    kind: Literal["calls"]
    """Selects this source."""
    split: Literal["train", "select", "test"]
    """Splits share no problem."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""


class JsonlTasksSpec(Section):
    """Problems from a file with one JSON object a line: `prompt`, `reference`, and optionally `images` and others."""

    kind: Literal["jsonl"]
    """Selects this source."""
    path: Path
    """The file. Image paths inside it are relative to its directory."""
    grader: GraderName = "math"
    """The grader of rows that name none."""
    limit: int | None = Field(None, gt=0)
    """Read only so many rows; all of them if absent."""


class SceneTasksSpec(Section):
    """Problems over pictures of coloured shapes, from the package easy-vqa (`vold.data.worlds.scenes`)."""

    kind: Literal["scenes"]
    """Selects this source."""
    split: Literal["train", "select", "test"]
    """Splits share no problem and no picture."""
    form: Literal["text", "image"] = "text"
    """Pictures described, or shown."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""


class GymTasksSpec(Section):
    """Problems that the package reasoning-gym generates."""

    kind: Literal["gym"]
    """Selects this source."""
    name: str
    """The generator, such as `chain_sum`."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""
    config: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """The generator's own settings."""


class EvaluationSet(Section):
    """A benchmark that training must not have seen."""

    name: str | None = None
    """Which benchmark, such as `mathvision`; the key it stands under if absent."""
    path: Path | None = None
    """Where it lies; the hub if absent."""
    split: str | None = None
    """The benchmark's usual split if absent."""
    revision: str | None = None
    """Hub revision."""


class Decontaminate(Section):
    """Problems that an evaluation set asks too are left out of training."""

    against: dict[str, EvaluationSet] = Field(min_length=1)
    """Benchmarks by name."""
    ngram: int = Field(13, ge=4)
    """A problem that shares so many consecutive words with one of them is left out, as is one that has the same words
    or the same picture."""


class DatasetTasksSpec(Section):
    """A published training set in its own layout. What cannot be used is left out, counted and listed."""

    kind: DatasetKind
    """Which one."""
    path: Path | None = None
    """A parquet, JSON, JSONL or zip file or a folder of them; the hub if absent."""
    config: str | None = None
    """Part of a set that has several: `math`, `code`, `science` of Mixture-of-Thoughts, `metadata` of OpenThoughts."""
    revision: str | None = None
    """Hub revision. Give the whole commit: data that changed under a run is refused."""
    instruction: str | None = None
    """Text after each problem. If absent, problems with a reference are followed by a request for a box."""
    min_difficulty: float | None = None
    """DeepMath only: easier problems are left out (Uni-OPD: 6)."""
    max_prompt_tokens: int | None = Field(None, gt=0)
    """Longer prompts are left out. Needs `tokenizer`."""
    tokenizer: str | None = None
    """Model directory or hub id whose tokenizer counts them."""
    decontaminate: Decontaminate | None = None
    """Leave out what evaluation sets ask too."""
    limit: int | None = Field(None, gt=0)
    """Stop after so many usable problems; all of them if absent."""

    @model_validator(mode="after")
    def _together(self) -> DatasetTasksSpec:
        if (self.max_prompt_tokens is None) != (self.tokenizer is None):
            raise ValueError("`max_prompt_tokens` and `tokenizer` go together")
        if self.min_difficulty is not None and self.kind != "deepmath":
            raise ValueError("only `kind: deepmath` has difficulties")
        if self.config is not None and self.kind not in ("mixture_of_thoughts", "openthoughts"):
            raise ValueError(f"`kind: {self.kind}` has no configs")
        return self


SingleSpec = DigitTasksSpec | CallTasksSpec | JsonlTasksSpec | SceneTasksSpec | GymTasksSpec | DatasetTasksSpec
"""One set of problems."""


class MixtureTasksSpec(Section):
    """Several sets at once."""

    kind: Literal["mixture"]
    """Selects this source."""
    sources: dict[str, Annotated[SingleSpec, Field(discriminator="kind")]] = Field(min_length=1)
    """Sets by name; the name becomes the tag `set` of its problems."""
    weights: dict[str, float] | None = None
    """Share of each set, by name, in any unit; if absent, every problem of every set once."""
    size: int | None = Field(None, gt=0)
    """How many problems; smaller sets are then repeated, in a new order each time. If absent, as many as there can be
    without repeating one."""
    seed: int = 0
    """Which problems, where not all of a set are taken."""

    @model_validator(mode="after")
    def _every_set_has_a_weight(self) -> MixtureTasksSpec:
        if self.weights is None and self.size is not None:
            raise ValueError("`size` needs `weights`")
        if self.weights is not None:
            if self.weights.keys() != self.sources.keys():
                raise ValueError(f"`weights` must name every set: {', '.join(self.sources)}")
            if min(self.weights.values()) <= 0:
                raise ValueError("every weight must be above 0; leave out sets that are not wanted")
        return self


TasksSpec = Annotated[SingleSpec | MixtureTasksSpec, Field(discriminator="kind")]


class PromptBalance(Section):
    """`vold balance`: problems repeated or left out by how many of the student's rollouts solve them."""

    tasks: TasksSpec
    """Problems with references."""
    init: str | None = None
    """Model whose rollouts say how hard a problem is; the run's own SFT result if absent."""
    rollouts: int = Field(8, ge=2)
    """Rollouts a problem (Uni-OPD: 8)."""
    sampling: Sampling
    """Sampling of the student."""
    engine: RolloutServer | None = None
    """Sample on these servers; in the run's own process if absent."""
    batch_size: int = Field(32, gt=0)
    """Problems answered side by side; also how many a kill can cost."""
    all_correct: float = Field(1.0, ge=0)
    """Copies of a problem that every rollout solves; of 0.5, half of them are left out."""
    all_incorrect: float = Field(1.0, ge=0)
    """Copies of a problem that no rollout solves. Uni-OPD keeps both kinds."""
    some_correct: Literal["flat"] | float = "flat"
    """Copies of all other problems. `flat`: as many as make every pass rate as frequent as the most frequent one."""
    max_copies: int = Field(4, ge=1)
    """Most copies of one problem under `flat`."""

    @property
    def rows(self) -> int:
        """Responses that are sampled side by side."""
        return self.batch_size * self.rollouts

    @model_validator(mode="after")
    def _can_differ(self) -> PromptBalance:
        if self.sampling.temperature == 0:
            raise ValueError("`sampling.temperature` must be above 0: greedy rollouts of a problem are all equal")
        if self.some_correct != "flat" and self.some_correct < 0:
            raise ValueError("`some_correct` must be `flat` or a number from 0 on")
        return self
