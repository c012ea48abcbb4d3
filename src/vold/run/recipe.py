"""The recipe: one validated, frozen object that is also what runs.

A recipe is a YAML file with one section a stage. `key.path=value` on the command line overrides it. Unknown keys are
errors with a suggestion. The resolved recipe is written to the run directory and repeats the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from vold.errors import ConfigError
from vold.objective import Objective
from vold.run.model_sections import Endpoint as Endpoint
from vold.run.model_sections import MismatchGate, RolloutServer, Teacher, TextTeacher, ToolEnvironment
from vold.run.model_sections import Model as Model
from vold.run.model_sections import Sampling as Sampling
from vold.run.model_sections import Section as Section
from vold.run.model_sections import Student as Student
from vold.run.overrides import is_method, override, readable
from vold.run.task_sections import DatasetTasksSpec as DatasetTasksSpec
from vold.run.task_sections import DigitTasksSpec as DigitTasksSpec
from vold.run.task_sections import GymTasksSpec as GymTasksSpec
from vold.run.task_sections import JsonlTasksSpec as JsonlTasksSpec
from vold.run.task_sections import MixtureTasksSpec as MixtureTasksSpec
from vold.run.task_sections import PromptBalance as PromptBalance
from vold.run.task_sections import SceneTasksSpec as SceneTasksSpec
from vold.run.task_sections import TasksSpec as TasksSpec

Exchange = Literal["micro_batch", "step"]
"""When processes exchange weights and gradients; `Run.exchange` says what each costs."""


class Run(Section):
    """Where a run lives and what makes it repeatable."""

    dir: Path
    """Directory of the run; created if absent, continued if present."""
    seed: int = 1
    """Seeds data order, rollouts and traces. Two runs of one recipe and seed give the same weights."""
    threads: int = Field(1, ge=1)
    """CPU threads of PyTorch. Results repeat bit for bit only at the same number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models live; `auto` takes a GPU if there is one."""
    offload: bool = False
    """In stage 2, keep the teacher and the optimizer's state in the host's memory while they have nothing to do."""
    exchange: Exchange = "micro_batch"
    """With several processes: when they exchange a student's weights and gradients. `micro_batch`: layer by layer in
    each, so that a process never holds more than its part and a layer or two. `step`: once an update, however many
    micro-batches it has; each process then holds all weights and all float32 gradients while it lasts."""


class Optimizer(Section):
    """AdamW with linear warm-up."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Moment decay rates."""
    warmup_steps: int = Field(5, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Cosine falls to `floor` of the peak at the last step."""
    floor: float = Field(0.1, ge=0, le=1)
    """Final share of the peak rate under the cosine schedule."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this."""


class Traces(Section):
    """`vold traces`: the teacher answers text prompts."""

    tasks: TasksSpec
    """Prompts to answer; their references are used only by `keep: correct` and the statistics."""
    answers: Literal["teacher", "data"] = "teacher"
    """`data` takes the solutions that come with the tasks, such as Mixture-of-Thoughts' own; no teacher is asked."""
    sampling: Sampling | None = None
    """Sampling of the teacher; needed unless `answers` is `data`."""
    max_tokens: int = Field(8192, gt=0)
    """Traces longer than this are not kept (the paper: 8192)."""
    keep: Literal["all", "correct"] = "all"
    """The paper filters by length only; `correct` also drops traces whose answer is wrong."""
    batch_size: int = Field(128, gt=0)
    """Prompts answered side by side; also how many answers a kill can cost."""

    @model_validator(mode="after")
    def _a_teacher_is_sampled(self) -> Traces:
        if self.answers == "teacher" and self.sampling is None:
            raise ValueError("a teacher needs `sampling`: add `sampling: {max_new_tokens: ...}`")
        return self


class Sft(Section):
    """`vold sft`: the cold start on the teacher's traces."""

    steps: int = Field(gt=0)
    """Optimizer steps."""
    batch_size: int = Field(256, gt=0)
    """Traces per step."""
    optimizer: Optimizer
    """Update rule."""
    token_budget: int = Field(8192, gt=0)
    """Tokens per micro-batch; changes memory and speed, not the gradient."""
    checkpoint_every: int = Field(100, gt=0)
    """Steps between checkpoints; a killed run loses at most this many."""


class Distill(Section):
    """`vold distill`: GRPO with the teacher term, on text prompts."""

    init: str | None = None
    """Model to start from; the run's own SFT result if absent."""
    tasks: TasksSpec
    """Text prompts with references."""
    objective: Objective = Field(default_factory=lambda: Objective.model_validate({"method": "vold"}))
    """What is optimised: a preset by `method`, and any of its parts overridden beside it."""
    prompts_per_step: int = Field(52, gt=0)
    """Prompts per step; with 5 rollouts each, 52 make the paper's batch of about 256."""
    rollouts: int = Field(5, gt=0)
    """Responses per prompt, the paper's K."""
    steps: int = Field(60, gt=0)
    """Optimizer steps, each on fresh rollouts."""
    sampling: Sampling
    """Sampling of the student."""
    engine: RolloutServer | None = None
    """Sample on these servers; in the run's own process if absent."""
    mismatch: MismatchGate = MismatchGate()
    """Limit of the distance between sampler and trainer."""
    optimizer: Optimizer
    """Update rule."""
    token_budget: int = Field(8192, gt=0)
    """Tokens per micro-batch; changes memory and speed, not the gradient."""
    checkpoint_every: int = Field(20, gt=0)
    """Steps between checkpoints; a killed run loses at most this many."""
    keep_rollouts_every: int = Field(10, gt=0)
    """Rollouts of every n-th step are stored with all token values."""

    @property
    def rows(self) -> int:
        """Responses that are sampled side by side."""
        return self.prompts_per_step * self.rollouts


class Align(Section):
    """`vold align`: do student and teacher overlap enough for distillation to work?"""

    tasks: TasksSpec
    """Text prompts to compare on."""
    sampling: Sampling
    """Sampling of the student."""
    rollouts: int = Field(4, gt=0)
    """Responses per prompt."""
    self_check: bool = False
    """Put the student in its teacher's place, in the same engine: the two must then agree."""


class Benchmark(Section):
    """A published benchmark. Training sections do not accept one."""

    name: str | None = None
    """Which benchmark, such as `mathvision`; the key it stands under if absent."""
    path: Path | None = None
    """A parquet, TSV, JSON, JSONL or zip file or a folder of them; the hub if absent."""
    split: str | None = None
    """The benchmark's usual split if absent."""
    revision: str | None = None
    """Hub revision; recorded either way."""
    protocol: Literal["rule", "vlmevalkit"] = "rule"
    """How it is asked and marked."""
    limit: int | None = Field(None, gt=0)
    """Only the first so many rows."""


class Eval(Section):
    """`vold eval`: accuracy of every stage on every task set and benchmark."""

    tasks: dict[str, TasksSpec] = Field(default_factory=dict)
    """Task sets by name, such as `image` and `text`."""
    benchmarks: dict[str, Benchmark] = Field(default_factory=dict)
    """Benchmarks by name."""
    sampling: Sampling
    """Sampling of the model under test."""
    samples: int = Field(1, gt=0)
    """Answers to each problem; accuracy is their mean (avg@k)."""
    models: dict[str, str] | None = None
    """Models by name; if absent: `base`, `sft` and `vold`, as far as this run has them."""
    endpoint: Endpoint | None = None
    """Ask this server instead of loading `models`; the results carry its model's name."""
    judge: Endpoint | None = None
    """Server that extracts answers under the `vlmevalkit` protocol."""
    batch_size: int = Field(128, gt=0)
    """Problems answered side by side; also how many answers a kill can cost."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Eval:
        if not self.tasks and not self.benchmarks:
            raise ValueError("eval needs `tasks` or `benchmarks`")
        if both := sorted(self.tasks.keys() & self.benchmarks.keys()):
            raise ValueError(f"a task set and a benchmark share the name {both[0]!r}")
        if self.judge is None and any(b.protocol == "vlmevalkit" for b in self.benchmarks.values()):
            raise ValueError("the vlmevalkit protocol needs a judge: add `judge: {urls: [...], model: ...}`")
        return self


class Recipe(Section):
    """A whole run. Sections a verb does not use may be absent."""

    run: Run
    """Directory, seed and threads."""
    student: Student
    """The model that learns."""
    teacher: Teacher | None = None
    """The text-only model it learns from."""
    environment: ToolEnvironment | None = None
    """A tool for all rollouts: the teacher's traces, the student's rollouts and the evaluation."""
    traces: Traces | None = None
    """Stage 1, data."""
    sft: Sft | None = None
    """Stage 1, cold start."""
    align: Align | None = None
    """Check before stage 2."""
    balance: PromptBalance | None = None
    """Problems for stage 2 by how often the student solves them."""
    distill: Distill | None = None
    """Stage 2."""
    eval: Eval | None = None
    """Evaluation."""

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> Recipe:
        users = ["traces"] if self.traces is not None and self.traces.answers == "teacher" else []
        users += ["align"] if self.align is not None else []
        if self.distill is not None and self.distill.objective.uses_teacher:
            users.append("distill")
        if users and self.teacher is None:
            raise ValueError(f"{' and '.join(users)} need a teacher: add `teacher: {{path: ...}}`")
        if self.distill is not None and self.distill.objective.mix is not None and self.traces is None:
            raise ValueError("distill.objective.mix needs the teacher's traces: add a `traces` section")
        if self.environment is not None and self.eval is not None and self.eval.endpoint is not None:
            raise ValueError("tools are not offered to a model behind `eval.endpoint`: drop that, or `environment`")
        if self.distill is not None and self.distill.sampling.temperature == 0:
            raise ValueError("distill.sampling.temperature must be above 0: greedy rollouts of a group are all equal")
        return self

    @model_validator(mode="after")
    def _aligned_teachers_score_single_tokens(self) -> Recipe:
        if any(t.tokenizer == "align" for t in self._teachers()):
            if self.environment is not None:
                raise ValueError("teacher.tokenizer=align: `environment` needs a teacher of the same ids and template")
            needs = self.distill.objective.needs if self.distill is not None else None
            if needs is not None and (needs.logits or needs.top_k):
                raise ValueError(
                    f"teacher.tokenizer=align can not give {needs.words}: another tokenizer has other tokens to choose "
                    "from. Use k2, k3, a teacher advantage, or top_k with support: student"
                )
        return self

    def _teachers(self) -> list[TextTeacher]:
        return [self.teacher, *self.teacher.routes.values()] if self.teacher is not None else []

    @model_validator(mode="after")
    def _servers_score_at_temperature_one(self) -> Recipe:
        if any(t.server is not None for t in self._teachers()):
            for name, stage in (("align", self.align), ("distill", self.distill)):
                if stage is not None and stage.sampling.temperature != 1:
                    raise ValueError(
                        f"{name}.sampling.temperature must be 1 with a teacher on a server: vLLM scores given tokens "
                        "at temperature 1 only, and teacher and rollouts have to be compared at the same one"
                    )
        return self


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides (values are YAML).

    `distill.objective.method=NAME` with another method than the file's drops the parts that the file gives its own
    method: a teacher term set up for `vold` would otherwise stay under `grpo`.

    Raises:
        ConfigError: no such file, not YAML, unknown or mistyped keys, or values that cannot run.
    """
    file = Path(path)
    try:
        raw = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError("cannot read this recipe", where=str(path), got=str(error.strerror)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            "this recipe is not valid YAML", where=str(path), got=str(error).replace("\n", " ")
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError("a recipe is a mapping of sections", where=str(path), got=type(raw).__name__)
    # A method named on the command line starts the objective afresh, so it goes before changes to its parts.
    for item in sorted(overrides, key=lambda i: not is_method(i.partition("=")[0])):
        override(raw, item)
    return recipe_from(raw, where=str(path))


def recipe_from(raw: dict[str, Any], *, where: str) -> Recipe:
    """Validate a nested dictionary as a recipe; see `load_recipe` for errors."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise readable(error, where, Recipe) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load_recipe` of it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
