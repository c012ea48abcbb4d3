"""`vold check`: everything about a recipe that can be known before anything is trained."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.text import Text
from transformers import AutoConfig

from vold.data.benchmarks.registry import load
from vold.data.sources import open_tasks
from vold.engines.samplers.student import check_rollouts
from vold.engines.teachers.health import probe_of
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.teachers import no_teachers, open_teachers
from vold.errors import ConfigError
from vold.evals.marking.golds import handle_golds
from vold.model.chat import Chat
from vold.model.loading import load_student, resolve
from vold.model.memory import phase_text, plan
from vold.model.tokenizers import TURNS, pair_tokenizers, pairing_lines
from vold.run.console import console
from vold.run.folders import latest_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vold.data.sources import Tasks
    from vold.engines.teachers.teachers import TeacherHandle, Teachers
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe
    from vold.run.task_sections import TaskSpec
    from vold.types import Prompt

PROMPTS = 64
"""So many prompts of a task set are measured."""


@dataclass(frozen=True)
class Finding:
    """One line of the check: what was looked at, and how it was found."""

    what: str
    how: str


@dataclass(frozen=True)
class TaskSet:
    """The tasks of one section, opened when they are first asked for. `key` names the set `name` of `sets`."""

    key: str
    name: str
    sets: Mapping[str, TaskSpec]
    max_new_tokens: int
    student: Policy

    @property
    def graded(self) -> bool:
        """Whether references are graded at start-up. Those of traces are not: the teacher answers these tasks."""
        return self.key != "traces.tasks"

    @cached_property
    def tasks(self) -> Tasks:
        """All of them."""
        return open_tasks(self.sets, self.name, references=self.graded)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Of the first tasks, as the student is asked."""
        return [self.student.chat.prompt(t.messages) for t in self.tasks[:PROMPTS]]


@dataclass(frozen=True)
class Subject:
    """A recipe and what it names; models and tasks are loaded when a check first asks for them."""

    recipe: Recipe

    @cached_property
    def student(self) -> Policy:
        """The student as training would start with it."""
        return load_student(self.recipe)

    @cached_property
    def teachers(self) -> Teachers:
        """All teachers that the recipe names."""
        return open_teachers(self.recipe, self.student) if self.recipe.teacher is not None else no_teachers()

    @cached_property
    def context(self) -> int:
        """The least context length of all models, in tokens. A teacher whose length is unknown does not count."""
        return min(
            [self.student.context, *filter(None, (t.backend.context() for t in self.teachers.by_route.values()))]
        )

    @cached_property
    def task_sets(self) -> list[TaskSet]:
        """Those of the stages, then those of the evaluation."""
        r = self.recipe
        named = [(f"{name}.tasks", s.tasks, s.sampling) for name, s in r.stages_with_tasks.items()]
        if r.eval is not None:
            named += [(f"eval.tasks: {name}", name, r.eval.sampling) for name in r.eval.tasks]
        room = [s.max_new_tokens if s is not None else 0 for _, _, s in named]
        return [TaskSet(key, name, r.tasks, n, self.student) for (key, name, _), n in zip(named, room, strict=True)]


def check(recipe: Recipe) -> list[str]:
    """Plan memory, load models and data, compare vocabularies, grade every reference, fit prompts into context lengths,
    and score one prompt with the teacher. Nothing is written. Returns one line a check.

    Raises:
        VoldError: the first thing that would stop the run.
    """
    lines: list[str] = []
    subject = Subject(recipe)
    for one in CHECKS:
        for found in one(subject):
            lines.append(f"{found.what}: {found.how}")
            console.print(Text.assemble("  ok  ", (found.what, "bold"), f"  {found.how}"))
    return lines


def _functions(subject: Subject) -> Iterator[Finding]:
    distill = subject.recipe.distill
    for name in distill.objective.try_functions() if distill is not None else ():
        yield Finding("function", f"{name} gives weights to two made-up rollouts")


def _memory(subject: Subject) -> Iterator[Finding]:
    """Nothing where a config cannot be read, which loading the model reports better."""
    recipe = subject.recipe
    teacher = recipe.teacher if recipe.teacher is not None and recipe.teacher.server is None else None
    try:
        ours = AutoConfig.from_pretrained(resolve(recipe.student.path), trust_remote_code=False)
        theirs = (
            AutoConfig.from_pretrained(resolve(teacher.path), trust_remote_code=False) if teacher is not None else None
        )
    except (OSError, ValueError, KeyError):
        return
    for phase in plan(recipe, ours, theirs, devices=int(os.environ.get("WORLD_SIZE", "1"))):
        yield Finding(f"memory of {phase.name}", phase_text(phase))


def _student(subject: Subject) -> Iterator[Finding]:
    student, config = subject.student, subject.recipe.student
    trained = f"{sum(p.numel() for _, p in student.trainable()):,}"
    changed = trained if config.lora is None else f"adapters of rank {config.lora.rank}"
    everything = sum(p.numel() for p in student.model.parameters())
    yield Finding("student", f"{type(student.model).__name__}, {everything:,} parameters, {changed} trained")
    yield Finding("frozen", ", ".join(config.freeze) or "nothing")
    yield Finding("never sampled", f"{len(student.banned)} ids (vision placeholders and rows without a token)")


def _teachers(subject: Subject) -> Iterator[Finding]:
    for route, teacher in subject.teachers.by_route.items():
        yield Finding(f"teacher for {route}" if route else "teacher", teacher.backend.describe())
        yield from _pair(subject, teacher)


def _pair(subject: Subject, teacher: TeacherHandle) -> Iterator[Finding]:
    """Two models' tokenizers, embeddings and templates side by side, before any token is added to the student."""
    recipe = subject.recipe
    ours, theirs = Chat.load(resolve(recipe.student.path)).tokenizer, teacher.backend.chat.tokenizer
    if teacher.aligner is not None:
        ids = ours(" ".join(t["content"] for t in TURNS), add_special_tokens=False)["input_ids"]
        spans = teacher.aligner.align(ids).spans
        got = sum(s is not None for s in spans)
        words = f"{got} of {len(spans)} tokens of a short text are whole tokens of the teacher's"
        yield Finding("another tokenizer", words)
        return
    config = AutoConfig.from_pretrained(resolve(teacher.spec.path), trust_remote_code=False)
    found = pair_tokenizers(ours, theirs, subject.student.model.config, config)
    added = recipe.student.teacher_tokens == "add" and teacher.spec is recipe.teacher
    yield from itertools.starmap(Finding, pairing_lines(found, len(ours), len(theirs), added=added))


def _context(subject: Subject) -> Iterator[Finding]:
    yield Finding("context", f"{subject.context:,} tokens for prompt and response, the least of all models")


def _benchmarks(subject: Subject) -> Iterator[Finding]:
    section = subject.recipe.eval
    for name, wanted in section.benchmarks.items() if section is not None else ():
        loaded = load(
            wanted.name or name, path=wanted.path, split=wanted.split, revision=wanted.revision, limit=wanted.limit
        )
        kept, bad = handle_golds(loaded.items)
        left_out = f"{len(loaded.bad)} rows that cannot be used, {len(bad)} golds that do not grade themselves"
        yield Finding(f"eval.benchmarks.{name}", f"{len(kept)} items; left out: {left_out}")


def _tasks(subject: Subject) -> Iterator[Finding]:
    for these in subject.task_sets:
        longest = max(len(p.ids) for p in these.prompts)
        if longest + these.max_new_tokens > subject.context:
            raise ConfigError(
                "prompt and response do not fit into the context",
                where=f"{these.key} and its max_new_tokens",
                got=f"{longest} + {these.max_new_tokens} tokens, context {subject.context}",
                fix=f"set max_new_tokens to {subject.context - longest} or less",
            )
        images = sum(len(m.images) for t in these.tasks[:PROMPTS] for m in t.messages)
        view = f", {images} images in the first {len(these.prompts)}" if images else ""
        graded = "every reference grades itself 1.0, " if these.graded else ""
        yield Finding(these.key, f"{len(these.tasks)} tasks, {graded}prompts up to {longest} tokens{view}")


def _one_prompt(subject: Subject) -> Iterator[Finding]:
    """The first prompt without pictures, scored by every model."""
    text = next((p for these in subject.task_sets for p in these.prompts if not p.vision), None)
    if not subject.teachers.by_route or text is None:
        return
    ours = InProcessTeacher(subject.student, temperature=1.0, token_budget=len(text.ids) + 1)
    (own,) = ours.score([probe_of(text.ids)])
    scored = {"student": float(own.logp.mean())}
    scored |= {f"teacher {route}".strip(): mean for route, mean in subject.teachers.probe(text.ids).items()}
    means = ", ".join(f"{name} {mean:.2f}" for name, mean in scored.items())
    yield Finding("one prompt scored by all", f"{means} nats per token")


def _distill(subject: Subject) -> Iterator[Finding]:
    d = subject.recipe.distill
    if d is None:
        return
    if d.engine is not None:
        prompts = next(these.prompts for these in subject.task_sets if these.key == "distill.tasks")
        servers = check_rollouts(d, subject.student, prompts[0], subject.recipe.run.dir)
        yield Finding("rollout servers", servers)
    yield Finding(
        "step", f"{d.prompts_per_step} prompts x {d.rollouts} rollouts, {d.steps} steps, {d.objective.method}"
    )
    yield Finding("asked of the teacher", d.objective.needs.words)


def _checkpoints(subject: Subject) -> Iterator[Finding]:
    for stage in ("sft", "distill"):
        found = latest_checkpoint(subject.recipe.run.dir / stage)
        if found is not None:
            yield Finding(f"{stage} continues", f"from {found.name}")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    _functions, _memory, _student, _teachers, _context, _benchmarks, _tasks, _one_prompt, _distill, _checkpoints,
)  # fmt: skip
"""In this order: what costs nothing first."""
