"""Sections of a recipe that say who teaches: a model of its own, or the student itself; and what it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from vold.errors import ConfigError
from vold.run.gates import QuantizeGate
from vold.run.model_sections import Model, Server
from vold.run.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.run.recipe import Recipe


class ScoringModel(Model):
    """A frozen model that scores. `path` is always needed: its tokenizer and chat template write its prompts."""

    server: Server | None = None
    """Score and answer on these servers; loaded from `path` into the run's own process if absent."""
    cache: Path | None = None
    """Directory that keeps every score; a request met before is not asked again."""
    tokenizer: Literal["shared", "align"] = "shared"
    """`shared`: token ids must mean the same in both models. `align`: the teacher may cut text otherwise. It scores
    those tokens of the student whose bytes are one or several whole tokens of its own, and no others."""

    quantize_error: QuantizeGate = QuantizeGate()
    """Limit of what `quantize` may change."""

    @model_validator(mode="after")
    def _quantised_here(self) -> ScoringModel:
        if self.quantize is not None and self.server is not None:
            raise ConfigError(
                "a server quantises its own model",
                got=f"quantize: {self.quantize} with server",
                fix="drop quantize and start the server with --quantization, or drop server",
            )
        return self

    @property
    def place(self) -> str:
        """Where it runs: the module of `vold.engines.teachers` that opens it."""
        return "inprocess" if self.server is None else "server"

    @property
    def is_the_start(self) -> bool:
        """Whether it is the model that stage 2 begins with, whichever that is."""
        return False


class StudentTeaches(Section):
    """The student in its teacher's place."""

    weights: Literal["live", "ema", "start"]
    """`live`: as they are when it is asked. `ema`: a running average of them. `start`: those that the stage began with,
    which stay."""
    rate: float = Field(0.05, gt=0, le=1)
    """With `ema`: average <- (1 - rate) average + rate weights, after every step (SDPO)."""


class TextTeacher(ScoringModel):
    """A model that teaches."""

    base: ScoringModel | None = None
    """The model that the teacher was trained from, shown what the teacher is shown; asked where the objective is
    `against: reference`."""
    student: StudentTeaches | None = None
    """The student is its own teacher, in the same memory; `path` is then that of the student."""
    system: str | None = Field(None, min_length=1)
    """A system message that the teacher is shown and the student is not, in the place of the task's own."""
    hint: str | None = Field(None, min_length=1)
    """What the teacher is told, and the student is not, behind the question: `{reference}` becomes the task's
    reference answer, `{solution}` the solution that comes with the data. A task that lacks it is not put to the
    teacher."""

    @property
    def place(self) -> str:
        """See `ScoringModel`."""
        return super().place if self.student is None or self.is_the_start else "student"

    @property
    def is_the_start(self) -> bool:
        """See `ScoringModel`."""
        return self.student is not None and self.student.weights == "start"

    @model_validator(mode="after")
    def _a_student_that_changes_is_here(self) -> TextTeacher:
        if self.student is None:
            return self
        said = {"server": self.server, "cache": self.cache, "quantize": self.quantize, "base": self.base}
        wrong = [name for name, value in said.items() if value is not None]
        if wrong or self.tokenizer == "align":
            raise ConfigError(
                "a student that teaches itself does so in the run's own process, with the weights it has there",
                got=f"student with {', '.join(wrong) or 'tokenizer: align'}",
                fix="leave out one of them",
            )
        return self


class TeacherSection(TextTeacher):
    """The model that is learnt from, or several."""

    route_by: str = "domain"
    """The tag of a task that names its teacher."""
    routes: dict[str, TextTeacher] = Field(default_factory=dict)
    """Teachers by that tag's value; a task with another value, or none, goes to the teacher above."""


def teacher_mistakes(recipe: Recipe) -> Iterator[ConfigError]:
    """What does not go with the teachers of a recipe."""
    yield from _aligned(recipe)
    needs = recipe.distill.objective.needs if recipe.distill is not None else None
    for where, one in named_teachers(recipe).items():
        if needs is not None and needs.contrast == "base" and one.base is None:
            yield ConfigError(
                "this objective compares the teacher with the model that it was trained from",
                where=f"{where}.base",
                got="none",
                fix=f"add {where}.base: {{path: ...}}, or set distill.objective.teacher_advantage.against=behaviour",
            )
        if one.student is not None:
            yield from _taught_by_itself(recipe, one.student, one.path, where)


def _taught_by_itself(recipe: Recipe, own: StudentTeaches, path: str, where: str) -> Iterator[ConfigError]:
    needs = recipe.distill.objective.needs if recipe.distill is not None else None
    if own.weights == "ema" and needs is not None and needs.logits:
        yield ConfigError(
            "a running average of the student is in its place for a pass at a time, and gives no whole distributions",
            where=f"{where}.student.weights",
            got=f"ema with an objective that needs {needs.words}",
            fix="use live or start, or teacher_loss.top_k: {k: 32, support: teacher}",
        )
    if recipe.student is not None and path != recipe.student.path:
        yield ConfigError(
            "a student that teaches itself is the student",
            where=f"{where}.path",
            got=f"{path}, student.path is {recipe.student.path}",
            fix=f"set {where}.path={recipe.student.path}, or leave out {where}.student",
        )


def named_teachers(recipe: Recipe) -> dict[str, TextTeacher]:
    """All teachers, by where they stand in the recipe."""
    if recipe.teacher is None:
        return {}
    return {"teacher": recipe.teacher} | {f"teacher.routes.{n}": t for n, t in recipe.teacher.routes.items()}


def _aligned(recipe: Recipe) -> Iterator[ConfigError]:
    """Teachers of another tokenizer score single tokens."""
    if not any(t.tokenizer == "align" for t in recipe.scoring_models):
        return
    if recipe.environment is not None:
        yield ConfigError(
            "`environment` needs a teacher of the same ids and template",
            where="teacher.tokenizer",
            got="align",
            fix="set teacher.tokenizer=shared, or leave out `environment`",
        )
    needs = recipe.distill.objective.needs if recipe.distill is not None else None
    if needs is not None and (needs.logits or needs.top_k):
        yield ConfigError(
            f"teacher.tokenizer=align can not give {needs.words}: another tokenizer has other tokens",
            where="distill.objective",
            fix="use k2, k3, a teacher advantage, or top_k with support: student",
        )
