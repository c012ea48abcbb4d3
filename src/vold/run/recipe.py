"""The recipe: one validated, frozen object that is also what runs.

A recipe is a YAML file with one section a stage. `key.path=value` on the command line overrides it. Unknown keys are
errors with a suggestion. The resolved recipe is written to the run directory and repeats the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from vold.errors import ConfigError
from vold.run.cluster_section import Cluster, cluster_mistakes
from vold.run.doors import beside
from vold.run.environment_section import ToolEnvironment as ToolEnvironment
from vold.run.mistakes import SeveralMistakes, Written, mistakes_in, raised, readable
from vold.run.model_sections import Endpoint as Endpoint
from vold.run.model_sections import Sampling as Sampling
from vold.run.model_sections import Student as Student
from vold.run.names import Name, no_twins
from vold.run.overrides import is_method, override
from vold.run.run_section import Exchange as Exchange
from vold.run.run_section import RunSection as RunSection
from vold.run.run_section import Within as Within
from vold.run.section import Section as Section
from vold.run.shipped import find_recipe
from vold.run.stage_sections import Align as Align
from vold.run.stage_sections import BenchmarkSection as BenchmarkSection
from vold.run.stage_sections import Distill as Distill
from vold.run.stage_sections import Eval as Eval
from vold.run.stage_sections import Optimizer as Optimizer
from vold.run.stage_sections import PromptBalance as PromptBalance
from vold.run.stage_sections import Sft as Sft
from vold.run.stage_sections import Traces as Traces
from vold.run.task_sections import AnyTaskSpec as AnyTaskSpec
from vold.run.task_sections import TaskSpec as TaskSpec
from vold.run.task_sections import find_task_set, refuse_inline_tasks, unknown_task_sets
from vold.run.teacher_sections import ScoringModel, TeacherSection, TextTeacher, teacher_mistakes
from vold.run.yaml_text import sections_in, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.run.mistakes import Mistake

ORDER = ("traces", "sft", "align", "balance", "distill", "eval")
"""Stages as they follow on each other."""
COMPARED = 64
"""Problems on which `vold align` compares by default."""


class Recipe(Section):
    """A whole run. Sections a verb does not use may be absent."""

    run: RunSection
    """Directory, seed and threads."""
    student: Student | None = None
    """The model that learns. Only a recipe that does nothing but evaluate `eval.endpoint` needs none."""
    teacher: TeacherSection | None = None
    """The text-only model it learns from."""
    tasks: Annotated[dict[Name, AnyTaskSpec], AfterValidator(no_twins)] = Field(default_factory=dict)
    """Task sets by name. `traces`, `align`, `balance`, `distill` and `eval` say by name which they use."""
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
    cluster: Cluster | None = None
    """Several machines."""

    @property
    def uses_student(self) -> bool:
        """Whether any stage does: all but an evaluation of a server at an address."""
        stages = (self.traces, self.sft, self.align, self.balance, self.distill)
        endpoint = self.eval.endpoint if self.eval is not None else None
        return any(s is not None for s in stages) or endpoint is None or endpoint.launch is not None

    @property
    def learner(self) -> Student:
        """The student, for whoever needs it.

        Raises:
            ConfigError: there is none.
        """
        if self.student is None:
            raise ConfigError(
                "this needs a student",
                where="student",
                got="none",
                fix="add `student: {path: ...}`; only a recipe that does nothing but evaluate `eval.endpoint` has none",
            )
        return self.student

    @property
    def stages_with_tasks(self) -> dict[str, Traces | Align | PromptBalance | Distill]:
        """The stages present that use one task set, by name."""
        stages = {"traces": self.traces, "align": self.align, "balance": self.balance, "distill": self.distill}
        return {name: section for name, section in stages.items() if section is not None}

    @property
    def stages(self) -> list[str]:
        """The stages that it has, in the order in which they run."""
        whole = self.with_align()
        return [name for name in ORDER if getattr(whole, name) is not None]

    @property
    def asked_while_training(self) -> list[tuple[str, str]]:
        """Stages that are evaluated while they train, each with the task sets they are asked; benchmarks left out."""
        known = self.eval.benchmarks if self.eval is not None else {}
        stages = {"sft": self.sft, "distill": self.distill}
        return [(n, one) for n, s in stages.items() if s and s.eval for one in s.eval.sets if one not in known]

    @property
    def method(self) -> str | None:
        """By which stage 2 trains; None of an objective of one's own, and without a stage 2."""
        return self.distill.objective.method if self.distill is not None else None

    def after(self, verb: str) -> str:
        """The verb that comes after one: the next stage, `show` behind the last, and all of them after a check."""
        if verb not in ORDER:
            return "run"
        return next((name for name in self.stages if name in ORDER[ORDER.index(verb) + 1 :]), "show")

    def with_align(self) -> Recipe:
        """With an `align` section: where the recipe has none, on the problems of stage 2 and sampled as there. Without
        one where no teacher is asked in stage 2 either."""
        d = self.distill
        if self.align is not None or d is None or not d.objective.uses_teacher:
            return self
        return self.model_copy(update={"align": Align(tasks=d.tasks, limit=COMPARED, sampling=d.sampling)})

    @property
    def text_teachers(self) -> list[TextTeacher]:
        """The teacher, then those of its routes."""
        return [self.teacher, *self.teacher.routes.values()] if self.teacher is not None else []

    @property
    def scoring_models(self) -> list[ScoringModel]:
        """The same, and what they were trained from where stage 2 asks for it."""
        asked = self.distill is not None and self.distill.objective.needs.contrast == "base"
        bases = [t.base for t in self.text_teachers if t.base is not None and asked]
        return [*self.text_teachers, *bases]

    @property
    def taught_by_itself(self) -> str | None:
        """Which of its weights teach a student that is its own teacher as it changes; None where none is."""
        d = self.distill
        found = [t.student.weights for t in self.text_teachers if t.student is not None and not t.is_the_start]
        return min(found, default=None) if d is not None and d.objective.uses_teacher else None

    @model_validator(mode="before")
    @classmethod
    def _task_sets_are_not_inline(cls, raw: Any) -> Any:
        if isinstance(raw, dict):
            refuse_inline_tasks(raw)
            if isinstance(raw.get("align"), dict):
                return {**raw, "align": {**align_defaults(raw.get("distill"), raw["align"]), **raw["align"]}}
        return raw

    @model_validator(mode="after")
    def _sections_go_together(self) -> Recipe:
        """All that is wrong between sections, at once."""
        checks = (
            self._student_where_needed,
            self._task_sets,
            self._teacher_where_needed,
            self._stop_strings,
            self._servers,
            self._greedy,
        )
        if found := [
            *(error for check in checks for error in check()),
            *cluster_mistakes(self),
            *teacher_mistakes(self),
        ]:
            raise SeveralMistakes(found)
        return self

    def _student_where_needed(self) -> Iterator[ConfigError]:
        if self.uses_student:
            try:
                _ = self.learner
            except ConfigError as error:
                yield error

    def _task_sets(self) -> Iterator[ConfigError]:
        """Sets that are named and not there, and mixtures of mixtures."""
        named = [(f"{stage}.tasks", section.tasks) for stage, section in self.stages_with_tasks.items()]
        named += [("eval.tasks", name) for name in (self.eval.tasks if self.eval is not None else ())]
        named += [(f"{name}.eval.sets", one) for name, one in self.asked_while_training]
        parts = [(f"tasks.{m}.sources.{label}", n) for m, spec in self.tasks.items() for label, n in spec.parts.items()]
        for where, name in (*named, *parts):
            try:
                inner = find_task_set(self.tasks, name, where).parts
            except ConfigError as error:
                yield error
                continue
            if inner and (where, name) in parts:
                yield ConfigError(
                    "a mixture has no mixture among its sources",
                    where=where,
                    got=name,
                    fix=f"name its sources here: {', '.join(inner.values())}",
                )

    def _teacher_where_needed(self) -> Iterator[ConfigError]:
        users = ["traces"] if self.traces is not None and self.traces.answers == "teacher" else []
        users += ["align"] if self.align is not None else []
        if self.distill is not None and self.distill.objective.uses_teacher:
            users.append("distill")
        if users and self.teacher is None:
            yield ConfigError(
                f"{' and '.join(users)} need a teacher",
                where="teacher",
                got="none",
                fix="add `teacher: {path: ...}`, or leave out these sections",
            )
        if self.distill is not None and self.distill.objective.mix is not None and self.traces is None:
            yield ConfigError(
                "the mixture needs the teacher's traces",
                where="distill.objective.mix",
                fix="add a `traces` section, or set distill.objective.mix=null",
            )

    def _stop_strings(self) -> Iterator[ConfigError]:
        for name in ("traces", "align", "balance", "distill", "eval") if self.environment is not None else ():
            stage = getattr(self, name)
            if stage is not None and stage.sampling is not None and stage.sampling.stop:
                yield ConfigError(
                    "between turns a response ends with the end token, which one that a stop string ends lacks",
                    where=f"{name}.sampling.stop",
                    got=str(list(stage.sampling.stop)),
                    fix="leave out `stop`, or `environment`",
                )

    def _greedy(self) -> Iterator[ConfigError]:
        if self.distill is not None and self.distill.sampling.temperature == 0:
            where, fix = "distill.sampling.temperature", "set it above 0; 1 is usual"
            yield ConfigError("greedy rollouts of a group are all equal", where=where, got="0", fix=fix)

    def _servers(self) -> Iterator[ConfigError]:
        """What servers cannot do."""
        if self.environment is not None and self.eval is not None and self.eval.endpoint is not None:
            yield ConfigError(
                "tools are not offered to a model behind `eval.endpoint`",
                where="eval.endpoint",
                fix="leave out that, or `environment`",
            )
        if any(t.server is not None for t in self.scoring_models):
            for name, stage in (("align", self.align), ("distill", self.distill)):
                if stage is not None and stage.sampling.temperature != 1:
                    yield ConfigError(
                        "vLLM scores given tokens at temperature 1 only, and teacher and rollouts are compared at one",
                        where=f"{name}.sampling.temperature",
                        got=f"{stage.sampling.temperature:g}",
                        fix="set it to 1, which a teacher on a server needs",
                    )


def align_defaults(distill: object, align: dict[str, Any]) -> dict[str, Any]:
    """Keys of `align` that it takes from `distill`, both as they are written."""
    if not isinstance(distill, dict):
        return {}
    taken = {key: distill[key] for key in ("tasks", "sampling") if key in distill}
    return taken if "tasks" in align else {**taken, "limit": COMPARED}


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe (a file, or the name of one that the package has) and apply `key.path=value` overrides in YAML.

    `distill.objective.method=NAME` with another method than the file's drops the parts that the file gives its own
    method: a teacher term set up for `vold` would otherwise stay under `grpo`.

    Raises:
        ConfigError: no such file or name, not YAML, a key that is there twice, unknown or mistyped keys, or values that
            cannot run.
    """
    path = find_recipe(str(path))
    text = text_of(path, "recipe")  # once: from a pipe it comes no second time
    raw = sections_in(text, path, "recipe")
    # A method named on the command line starts the objective afresh, so it goes before changes to its parts.
    for item in sorted(overrides, key=lambda i: not is_method(i.partition("=")[0])):
        override(raw, item)
    beside(raw, path)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        known = frozenset(_mistakes(sections_in(text, path, "recipe"))) if overrides else frozenset()
        raise readable(_found(error, raw), Written(str(path), text, tuple(overrides), known)) from None


def recipe_from(raw: dict[str, Any], *, where: str) -> Recipe:
    """Validate a nested dictionary as a recipe; see `load_recipe` for errors."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise readable(_found(error, raw), Written(where)) from None


def _mistakes(raw: dict[str, Any]) -> list[Mistake]:
    try:
        Recipe.model_validate(raw)
    except ValidationError as error:
        return _found(error, raw)
    return []


def _found(error: ValidationError, raw: dict[str, Any]) -> list[Mistake]:
    """Where a value is wrong, validation does not come to the names of task sets."""
    return list(dict.fromkeys([*mistakes_in(error, raw, Recipe), *(raised(e, raw) for e in unknown_task_sets(raw))]))


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load_recipe` of it gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
