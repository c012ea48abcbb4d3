"""What stops no run and is likely not meant, as far as the recipe alone tells: the warnings of `vold check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import CheckpointError
from vold.evals.subject import Finding
from vold.model.reading import may_be_on_the_hub, read_config
from vold.objective import PRESETS
from vold.run.mistakes import Mistake, Written, readable
from vold.run.model_sections import Student
from vold.run.readiness import align_doubt
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vold.evals.subject import Subject
    from vold.run.recipe import Distill, Recipe, Sft
    from vold.run.teacher_sections import ScoringModel

    Doubts = Iterator[tuple[str, str]]
    """Keys, and what is odd about their values."""

HIGHEST_RATE, LOWEST_RATE = 1e-2, 1e-8
"""Learning rates of AdamW outside of which nothing is known to train: the demo's models of a million parameters take
4e-3, published ones of billions 1e-6 and more."""
WARMEST, COLDEST = 1.5, 0.5
"""Temperatures of rollouts beyond which samples are noise, or hardly differ."""
GATE = 0.1
"""Nats below which a gate drops tokens that student and teacher agree on."""


def named_files(subject: Subject) -> Iterator[Finding]:
    """Says nothing where everything is there.

    Raises:
        CheckpointError: one of the models that are named cannot be read.
        ConfigError: several cannot be, or a data file is not there.
    """
    recipe, models = subject.recipe, dict[str, "Student | ScoringModel"]()
    if recipe.uses_student:
        models["student"] = recipe.learner
        if (teacher := recipe.teacher) is not None:
            models |= {"teacher": teacher, **{f"teacher.routes.{name}": t for name, t in teacher.routes.items()}}
    told, errors = list[Mistake](), list[CheckpointError]()
    for key, model in models.items():
        path, loaded = resolve(model.path), isinstance(model, Student) or model.place == "inprocess"
        if not loaded and (may_be_on_the_hub(path) or Path(path).is_dir()):
            continue  # of a model on a server its tokenizer is enough
        try:
            read_config(path)
        except CheckpointError as error:
            errors.append(error)
            got = error.got if path in error.got else f"{error.where}: {error.got}"
            told.append(Mistake((*key.split("."), "path"), error.what, got, error.fix))
    fix = "check the path; it is seen from where the command runs"
    for name, spec in recipe.tasks.items():
        file = getattr(spec, "path", None)
        if isinstance(file, Path) and not file.exists():
            told.append(Mistake(("tasks", name, "path"), "there is nothing at this path", str(file), fix))
    if errors and len(told) == 1:
        raise errors[0]
    if told:
        raise readable(told, Written("recipe"))
    yield from ()


def recipe_doubts(subject: Subject) -> Iterator[Finding]:
    """Every doubt about a recipe's own values."""
    for doubt in DOUBTS:
        for what, how in doubt(subject.recipe):
            yield Finding(what, how, warns=True)


def _stages(r: Recipe) -> Iterator[tuple[str, Sft | Distill]]:
    yield from ((name, stage) for name, stage in (("sft", r.sft), ("distill", r.distill)) if stage is not None)


def _groups(r: Recipe) -> Doubts:
    if r.distill is None or (outcome := r.distill.objective.outcome) is None:
        return
    if r.distill.rollouts == 1:
        yield "distill.rollouts", "1 response a prompt is compared with no other: every outcome advantage is 0; take 4"
    if outcome.weight == 0:
        yield "distill.objective.outcome.weight", "0: right and wrong answers count the same"


def _steps(r: Recipe) -> Doubts:
    for name, stage in _stages(r):
        if 0 < stage.steps <= stage.optimizer.warmup_steps:
            peak = f"{stage.optimizer.warmup_steps} of {stage.steps} steps: the learning rate only rises"
            yield f"{name}.optimizer.warmup_steps", f"{peak}; take a tenth of the steps"
        if _asked(stage, "checkpoint_every") and stage.checkpoint_every > stage.steps:
            yield f"{name}.checkpoint_every", f"{stage.checkpoint_every} of {stage.steps} steps: a kill costs the stage"
    d = r.distill
    if d is not None and _asked(d, "keep_rollouts_every") and d.keep_rollouts_every > d.steps:
        kept = f"{d.keep_rollouts_every} of {d.steps} steps: rollouts of the first and the last step alone are stored"
        yield "distill.keep_rollouts_every", kept


def _asked(stage: Sft | Distill, key: str) -> bool:
    """Whether the recipe names the key: a default that does not fit a short run is nobody's intention."""
    return key in stage.model_fields_set


def _rates(r: Recipe) -> Doubts:
    for name, stage in _stages(r):
        o = stage.optimizer
        if not LOWEST_RATE <= o.lr <= HIGHEST_RATE:
            usual = f"{o.lr:g}: AdamW trains language models at {LOWEST_RATE:g} to {HIGHEST_RATE:g}"
            yield f"{name}.optimizer.lr", usual
        elif o.lr * o.weight_decay > 0.01:
            yield (
                f"{name}.optimizer.weight_decay",
                f"{o.weight_decay:g}: {o.lr * o.weight_decay:.0%} of a weight a step",
            )


def _temperatures(r: Recipe) -> Doubts:
    d = r.distill
    if d is not None and not COLDEST <= d.sampling.temperature <= WARMEST:
        why = "noise" if d.sampling.temperature > WARMEST else "hardly any differences within a group"
        yield "distill.sampling.temperature", f"{d.sampling.temperature:g}: {why}; 1 is usual"
    for name, stage in (("traces", r.traces), ("eval", r.eval), ("balance", r.balance)):
        if stage is not None and stage.sampling is not None and stage.sampling.temperature > WARMEST:
            yield f"{name}.sampling.temperature", f"{stage.sampling.temperature:g}: noise; 1 or less is usual"
    if d is not None and r.align is not None and r.align.sampling.temperature != d.sampling.temperature:
        both = f"{r.align.sampling.temperature:g}, and rollouts are at {d.sampling.temperature:g}"
        yield "align.sampling.temperature", f"{both}: another student is compared than stage 2 starts with"
    if r.eval is not None and r.eval.samples > 1 and r.eval.sampling.temperature == 0:
        yield "eval.samples", f"{r.eval.samples} greedy answers to a problem are all the same; take 1, or a temperature"


def _lengths(r: Recipe) -> Doubts:
    t, d, e = r.traces, r.distill, r.eval
    if t is not None and t.sampling is not None and t.answers == "teacher" and t.max_tokens < t.sampling.max_new_tokens:
        cut = f"{t.max_tokens}: longer answers are made, up to {t.sampling.max_new_tokens} tokens, and not kept"
        yield "traces.max_tokens", cut
    if d is None:
        return
    taught = min(t.max_tokens, t.sampling.max_new_tokens) if t is not None and t.sampling is not None else 0
    room = d.sampling.max_new_tokens
    if 2 * room <= taught:
        yield "distill.sampling.max_new_tokens", f"{room}: the cold start teaches answers of up to {taught} tokens"
    if e is not None and e.sampling.max_new_tokens < room:
        less = f"{e.sampling.max_new_tokens}: rollouts have {room}, so that answers are cut which training rewards"
        yield "eval.sampling.max_new_tokens", less
    if d.token_budget < room:
        yield "distill.token_budget", f"{d.token_budget}: a response alone may have {room}; memory is planned for less"


def _terms(r: Recipe) -> Doubts:
    """Terms of the objective that never act."""
    if r.distill is None:
        return
    o, at, advantage = r.distill.objective, "distill.objective", r.distill.objective.teacher_advantage
    for name, term in (("teacher_advantage", advantage), ("teacher_loss", o.teacher_loss)):
        if term is not None and term.coefficient == 0:
            yield f"{at}.{name}.coefficient", "0: the teacher is asked and teaches nothing"
        if term is not None and term.mask == "passed" and o.outcome is None and r.distill.rollouts == 1:
            yield f"{at}.{name}.mask", "passed, with 1 rollout a prompt: problems that are not solved teach nothing"
    if advantage is not None and advantage.gate is not None and advantage.gate < GATE:
        yield f"{at}.teacher_advantage.gate", f"{advantage.gate:g} nats: nearly every token is dropped; 10 is usual"
    if r.environment is None and advantage is not None and advantage.steps is not None:
        yield f"{at}.teacher_advantage.steps", "without `environment` a rollout has one step, whose weight is 1"
    if r.environment is None and o.outcome is not None and o.outcome.tool_reward is not None:
        yield f"{at}.outcome.tool_reward", "without `environment` nothing is called, so it is never paid"


def _order(r: Recipe) -> Doubts:
    """Stages whose beginning nobody makes."""
    if r.sft is not None and r.traces is None:
        yield "sft", "the cold start reads the traces of `vold traces`, and there is no `traces` section"
    d, final = r.distill, r.run.dir / "sft" / "final"
    if d is not None and d.init is None and r.sft is None and not final.is_dir():
        yield "distill", "it starts from a cold start, and there is no `sft` section; add one, or `distill.init`"
    if (doubt := align_doubt(r)) is not None:
        yield "align", doubt


def _teachers(r: Recipe) -> Doubts:
    named = {"teacher.path": r.teacher} if r.teacher is not None else {}
    routes = r.teacher.routes if r.teacher is not None else {}
    for key, one in {**named, **{f"teacher.routes.{name}.path": one for name, one in routes.items()}}.items():
        if r.student is not None and _same(one.path, r.student.path) and one.system is None and one.hint is None:
            yield key, f"{one.path}: the student's own model has nothing to teach it that is shown no more than it sees"
    method = r.distill.objective.method if r.distill is not None else None
    for key, value in PRESETS[method].teacher.items() if method is not None else ():
        found: object = r
        for part in key.split("."):
            found = getattr(found, part, None)
        if found is None:
            yield key, f"none: {method} is made for {value}"


def _servers(r: Recipe) -> Doubts:
    """What is said of servers that are not there, or not asked like that."""
    server = r.teacher.server if r.teacher is not None else None
    if r.traces is not None and r.traces.devices is not None and server is not None and server.launch is None:
        yield "traces.devices", "`teacher.server` has no `launch`, so no server is started there"
    for name, engine in (("distill", r.distill and r.distill.engine), ("balance", r.balance and r.balance.engine)):
        if engine and engine.weights_dir is not None and engine.transfer != "files":
            yield f"{name}.engine.weights_dir", f"weights go by {engine.transfer}, through no directory"


def _same(one: str, other: str) -> bool:
    a, b = (Path(resolve(path)) for path in (one, other))
    return one == other or (a.is_dir() and b.is_dir() and os.path.samefile(a, b))


DOUBTS: tuple[Callable[[Recipe], Doubts], ...] = (
    _groups, _steps, _rates, _temperatures, _lengths, _terms, _order, _teachers, _servers,
)  # fmt: skip
"""In the order in which they are printed."""
