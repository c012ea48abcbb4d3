"""Task sets of a recipe: made here, from a file, published, or several at once. Stages refer to them by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from vold.errors import ConfigError
from vold.graders import known_grader
from vold.run.model_sections import Section

GraderName = Annotated[str, AfterValidator(known_grader)]

DatasetKind = Literal[
    "mixture_of_thoughts", "orz57k", "deepmath", "openthoughts", "openthoughts3", "geometry3k", "mmk12", "virl39k"
]


STAGES_WITH_TASKS = ("traces", "align", "balance", "distill", "eval")
"""Sections whose `tasks` names task sets; `eval` names several."""


class TaskSpec(Section):
    """A set of problems that stages name."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Names of the task sets that this one is made of."""
        return {}


class DigitTasksSpec(TaskSpec):
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


class CallTasksSpec(TaskSpec):
    """Problems of the demo world for tools; the recipe needs an `environment` with fenced calls."""

    kind: Literal["calls"]
    """Selects this source."""
    split: Literal["train", "select", "test"]
    """Splits share no problem."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""


class JsonlTasksSpec(TaskSpec):
    """Problems from a file with one JSON object a line: `prompt`, `reference`, and optionally `images` and others."""

    kind: Literal["jsonl"]
    """Selects this source."""
    path: Path
    """The file. Image paths inside it are relative to its directory."""
    grader: GraderName = "math"
    """The grader of rows that name none."""
    limit: int | None = Field(None, gt=0)
    """Read only so many rows; all of them if absent."""


class SceneTasksSpec(TaskSpec):
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


class GymTasksSpec(TaskSpec):
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


class DatasetTasksSpec(TaskSpec):
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


class MixtureTasksSpec(TaskSpec):
    """Several sets at once."""

    kind: Literal["mixture"]
    """Selects this source."""
    sources: dict[str, str] = Field(min_length=1)
    """Names of task sets that are no mixtures, each under the value that the tag `set` of its problems gets."""
    weights: dict[str, float] | None = None
    """Share of each source, under the same keys, in any unit; if absent, every problem of every set once."""
    size: int | None = Field(None, gt=0)
    """How many problems; smaller sets are then repeated, in a new order each time. If absent, as many as there can be
    without repeating one."""
    seed: int = 0
    """Which problems, where not all of a set are taken."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Names of the task sets that this one is made of."""
        return self.sources

    @model_validator(mode="after")
    def _every_set_has_a_weight(self) -> MixtureTasksSpec:
        if self.weights is None and self.size is not None:
            raise ValueError("`size` needs `weights`")
        if self.weights is not None:
            if self.weights.keys() != self.sources.keys():
                raise ValueError(f"`weights` must name every source: {', '.join(self.sources)}")
            if min(self.weights.values()) <= 0:
                raise ValueError("every weight must be above 0; leave out sets that are not wanted")
        return self


TasksSpec = Annotated[SingleSpec | MixtureTasksSpec, Field(discriminator="kind")]


def find_task_set(sets: Mapping[str, TasksSpec], name: str, where: str) -> TasksSpec:
    """The set of this name.

    Raises:
        ConfigError: the recipe has no such set.
    """
    if name in sets:
        return sets[name]
    close = difflib.get_close_matches(name, sets, n=1, cutoff=0.5)
    known = f"task sets of this recipe: {', '.join(sets)}" if sets else f"name it: tasks.{name}={{kind: ..., ...}}"
    raise ConfigError(
        "no task set has this name", where=where, got=name, fix=f"did you mean {close[0]!r}?" if close else known
    )


def refuse_inline_tasks(raw: Mapping[str, Any]) -> None:
    """Refuse a recipe whose stages spell out their task sets.

    Raises:
        ConfigError: one does; the message says how to write it.
    """
    for stage in STAGES_WITH_TASKS:
        section = raw.get(stage)
        found = section.get("tasks") if isinstance(section, Mapping) else None
        if isinstance(found, Mapping):
            sets = dict(found) if stage == "eval" else {stage: found}
            named = f"[{', '.join(map(str, sets))}]" if stage == "eval" else stage
            written = [f"tasks.{name}={_short(one)}" for name, one in sets.items()]
            raise ConfigError(
                "task sets are named once, in the recipe's `tasks`, and stages refer to them",
                where=f"{stage}.tasks",
                got=_short(found),
                fix=" ".join([*written, f"{stage}.tasks={named}"]),
            )


def _short(value: object) -> str:
    """A mapping by one of its keys.

    Example:
        >>> _short({"kind": "digits", "size": 3})
        '{kind: digits, ...}'
    """
    if not isinstance(value, Mapping) or not value:
        return repr(value)
    key = "kind" if "kind" in value else next(iter(value))
    first = f"{key}: {'{...}' if isinstance(value[key], Mapping) else value[key]}"
    return f"{{{first}{', ...' if len(value) > 1 else ''}}}"
