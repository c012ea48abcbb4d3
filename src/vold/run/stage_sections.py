"""Sections of a recipe that say what its stages do, a section each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vold.errors import ConfigError
from vold.objective import PRESETS, Objective
from vold.run.gates import MismatchGate
from vold.run.model_sections import Devices, Launchable, RolloutServer, Sampling
from vold.run.names import Name, no_twins, path_name
from vold.run.section import Section


class Optimizer(Section):
    """AdamW with linear warm-up."""

    lr: float = Field(gt=0, le=100)
    """Peak learning rate."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """Decoupled weight decay."""
    warmup_steps: int = Field(5, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Cosine falls to `floor` of the peak at the last step."""
    floor: float = Field(0.1, ge=0, le=1)
    """Final share of the peak rate under the cosine schedule."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm is clipped to this."""
    moments: Literal["8bit"] | None = None
    """Keep the moments in 8 bits (bitsandbytes, `pip install 'vold[quant]'`): 2 bytes a weight in place of 8. In one
    process. Absent: float32."""


class WhileTraining(Section):
    """Evaluation between two steps: before the first, after every n-th, and after the last."""

    every: int = Field(gt=0)
    """Steps between two evaluations."""
    sets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Task sets, or benchmarks of `eval`. The first decides which model is the best."""
    size: int = Field(128, ge=2)
    """Questions of each set, the first ones."""
    sampling: Sampling | None = None
    """Sampling of the student; that of `eval` if absent, or else greedy and as long as in training."""
    keep_every: int | None = Field(None, gt=0)
    """Keep the model of every n-th evaluation in `models/step-N`. The best one is kept in `models/best` anyway."""
    patience: int | None = Field(None, gt=0)
    """End the stage after so many evaluations in a row that are no better than one before. Absent: it goes on."""

    def times(self, steps: int) -> list[int]:
        """With how many steps behind it the student is evaluated, of a stage of so many.

        Example:
            >>> WhileTraining(every=4, sets=("image",)).times(10)
            [0, 4, 8, 10]
        """
        return [*range(0, steps, self.every), steps]


class Traces(Section):
    """`vold traces`: the teacher answers text prompts."""

    tasks: str
    """The task set whose prompts are answered; its references are used only by `keep: correct` and the statistics."""
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
    devices: Devices | None = None
    """Where the servers of `teacher.server.launch` run while they answer, if not where they run in stage 2: more GPUs,
    as no rollout server needs its own yet."""

    @model_validator(mode="after")
    def _a_teacher_is_sampled(self) -> Traces:
        if self.answers == "teacher" and self.sampling is None:
            raise ConfigError(
                "a teacher needs `sampling`", got="none", fix="add `traces.sampling: {max_new_tokens: ...}`"
            )
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
    eval: WhileTraining | None = None
    """Evaluate the student while it trains; absent: only `vold eval` does."""


class Updates(Section):
    """Optimizer steps on the rollouts of one step. Log-probs of the sampler stay as they are meanwhile, so that ratio
    and clip act from the second one on."""

    mini_batches: int = Field(1, gt=0)
    """Parts that the rollouts are cut into, an update each."""
    epochs: int = Field(1, gt=0)
    """Times that all of them are learnt from, each in another order."""


class Distill(Section):
    """`vold distill`: GRPO with the teacher term, on text prompts."""

    init: str | None = None
    """Model to start from; the run's own SFT result if absent."""
    tasks: str
    """The task set: text prompts with references."""
    objective: Objective = Field(default_factory=lambda: Objective.model_validate({"method": "vold"}))
    """What is optimised: a preset by `method`, and any of its parts overridden beside it."""
    prompts_per_step: int = Field(52, gt=0)
    """Prompts per step; with 5 rollouts each, 52 make the paper's batch of about 256."""
    rollouts: int = Field(5, gt=0)
    """Responses per prompt, the paper's K."""
    refill: int | None = Field(None, gt=0)
    """DAPO's dynamic sampling: groups that the objective can learn nothing from, such as those that all passed, are
    replaced by further prompts, in at most so many rounds. Absent: none is."""
    steps: int = Field(60, gt=0)
    """Steps, each on fresh rollouts."""
    updates: Updates | None = None
    """Updates a step; those of the method's own run if absent: four mini-batches for `sod`, one for all others."""
    ahead: int = Field(0, ge=0, le=1)
    """How many steps before its updates a step is sampled. At 1, servers sample the next step while the student
    updates, from the weights that the present one begins with."""
    sampling: Sampling
    """Sampling of the student."""
    engine: RolloutServer | None = None
    """Sample on these servers; in the run's own process if absent."""
    batch_size: int = Field(128, gt=0)
    """Responses sampled side by side in the run's own process; those that end make room for the next ones."""
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
    eval: WhileTraining | None = None
    """Evaluate the student while it trains; absent: only `vold eval` does."""

    @model_validator(mode="after")
    def _a_part_has_rollouts(self) -> Distill:
        if self.updates is not None and self.updates.mini_batches > self.responses:
            raise ConfigError(
                "there are more mini-batches than rollouts",
                where="distill.updates.mini_batches",
                got=f"{self.updates.mini_batches} of {self.responses} rollouts",
                fix="lower it, or raise prompts_per_step",
            )
        return self

    @model_validator(mode="after")
    def _ahead_has_servers_of_its_own(self) -> Distill:
        e = self.engine
        if self.ahead and (e is None or e.colocate or e.sleep):
            raise ConfigError(
                "rollouts are sampled while the student updates on servers alone that nothing else is in the way of",
                where="distill.ahead",
                got="sampling in the training process" if e is None or e.colocate else "servers that sleep meanwhile",
                fix="give distill.engine `urls`, or `launch` with devices of its own, and no `sleep`; or set ahead=0",
            )
        return self

    @model_validator(mode="after")
    def _truncated_rollouts_have_one_log_prob_a_token(self) -> Distill:
        o = self.objective
        more = o.needs.candidates or o.needs.top_k or o.needs.logits
        if (narrowing := self.sampling.params().narrowing) and (more or o.mix is not None):
            raise ConfigError(
                "truncated rollouts are learnt from by the log-probs of their own tokens",
                where="distill.sampling",
                got=f"{', '.join(narrowing)} with an objective that needs {o.needs.words}"
                + (" and mixes in the teacher's traces" if o.mix is not None else ""),
                fix="leave out top_p, top_k and min_p, or use an objective on sampled tokens",
            )
        return self

    @property
    def all_updates(self) -> Updates:
        """Updates a step, the method's own where the recipe does not say."""
        method = self.objective.method
        return self.updates or Updates(mini_batches=PRESETS[method].mini_batches if method is not None else 1)

    @property
    def rows(self) -> int:
        """Responses that are sampled side by side."""
        return min(self.batch_size, self.responses)

    @property
    def responses(self) -> int:
        """Responses of a step."""
        return self.prompts_per_step * self.rollouts

    def keeps(self, step: int) -> bool:
        """Whether the rollouts of 0-based `step` are stored."""
        return step % self.keep_rollouts_every == 0 or step + 1 == self.steps


class Align(Section):
    """`vold align`: do student and teacher overlap enough for distillation to work? `tasks` and `sampling`, or the
    whole section, are those of `distill` where they are left out."""

    tasks: str
    """The task set: text prompts to compare on. If absent that of `distill`; required without one."""
    limit: int | None = Field(None, gt=0)
    """Only the first so many problems. If absent all of `tasks`, or 64 of those of `distill`."""
    sampling: Sampling
    """Sampling of the student. If absent that of `distill`; required without one."""
    rollouts: int = Field(4, gt=0)
    """Responses per prompt."""
    self_check: bool = False
    """Put the student in its teacher's place, in the same engine: the two must then agree."""


class BenchmarkSection(Section):
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


class TestedEndpoint(Launchable):
    """A server whose model is tested, or such as are started for one of `models` after the other."""

    model: Annotated[str, AfterValidator(lambda name: path_name(name) if name else name)] = ""
    """The name the server gives the model; its answers lie in a folder of that name. With `launch` models have the
    names of `models`."""


class JudgeServer(Launchable):
    """A server whose model extracts answers: any that speaks the OpenAI chat protocol, a local `vllm serve` too. With
    `launch` it is started when all questions are answered, so that it can have the GPUs of the model under test."""

    model: str
    """The name the server gives the model; with `launch` the model itself, a directory or a hub id."""
    cache: Path | None = None
    """Directory that keeps the judge's replies for all runs, by what it was asked; the run's own `eval/judge` if
    absent."""


class Eval(Section):
    """`vold eval`: accuracy of every stage on every task set and benchmark."""

    tasks: tuple[str, ...] = ()
    """Task sets, such as `[image, text]`; results stand under their names."""
    benchmarks: Annotated[dict[Name, BenchmarkSection], AfterValidator(no_twins)] = Field(default_factory=dict)
    """Benchmarks by name."""
    sampling: Sampling
    """Sampling of the model under test."""
    samples: int = Field(1, gt=0)
    """Answers to each problem; accuracy is their mean (avg@k)."""
    models: Annotated[dict[Name, str], AfterValidator(no_twins)] | None = None
    """Models by name; if absent: `base`, `sft` and `vold` (of stage 2), as far as this run has them."""
    endpoint: TestedEndpoint | None = None
    """Ask this server instead of loading `models`; the results carry its model's name."""
    judge: JudgeServer | None = None
    """Server that extracts answers under the `vlmevalkit` protocol."""
    batch_size: int = Field(128, gt=0)
    """Problems answered side by side; also how many answers a kill can cost."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Eval:
        if not self.tasks and not self.benchmarks:
            raise ConfigError("eval needs `tasks` or `benchmarks`", fix="add `tasks: [NAME]`, or leave out `eval`")
        if len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"a task set is named twice: {', '.join(self.tasks)}", fix="name each of them once")
        no_twins(dict.fromkeys([*self.tasks, *self.benchmarks]))
        if both := sorted({*self.tasks} & self.benchmarks.keys()):
            raise ConfigError(f"a task set and a benchmark share the name {both[0]!r}", fix="rename one of them")
        if self.judge is None and any(b.protocol == "vlmevalkit" for b in self.benchmarks.values()):
            fix = "add `judge: {urls: [...], model: ...}`"
            raise ConfigError("the vlmevalkit protocol needs a judge", got="none", fix=fix)
        return self


class PromptBalance(Section):
    """`vold balance`: problems repeated or left out by how many of the student's rollouts solve them."""

    tasks: str
    """The task set: problems with references."""
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
            raise ConfigError(
                "greedy rollouts of a problem are all equal", got="sampling.temperature 0", fix="set it above 0"
            )
        if self.some_correct != "flat" and self.some_correct < 0:
            fix = "write `flat`, or a number from 0 on"
            raise ConfigError("`some_correct` counts copies", got=f"{self.some_correct:g}", fix=fix)
        return self
