"""The student as its own teacher. It must agree with itself: if not, the engines do not fit together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from vold.data.sources import open_tasks
from vold.engines.launch.serving import serving
from vold.engines.mismatch import Mismatch
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.student import open_sampler
from vold.engines.teachers.ask import request_of
from vold.engines.teachers.health import check_alive, probe_of_prompt
from vold.engines.teachers.inprocess import InProcessBackend
from vold.engines.teachers.teachers import open_teachers
from vold.errors import ConfigError, TeacherError
from vold.evals.overlap import no_align
from vold.model.loading import load_student, stage_models
from vold.run.console import console
from vold.run.directory import open_stage, works_in_run
from vold.run.files import write_json
from vold.run.order import seed_of
from vold.run.shipped import resolve
from vold.run.summaries import SelfCheck
from vold.types import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.engines.teachers.backend import TeacherBackend
    from vold.model.policy import Policy
    from vold.run.recipe import Align, Recipe
    from vold.types import Prompt, Sampler, Task

LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}
"""Highest KL in nats per token by the precision of the coarser side. Two float32 programs differ by about 1e-6 in a
log-prob, which is 1e-12 in KL; bfloat16 has 8 bits, and logits of 10 to 20 come in steps of 1/16."""


@works_in_run("align")
def self_check(recipe: Recipe) -> SelfCheck:
    """Sample from the student, score its responses with the teacher's engine holding the student's own weights, and
    compare with the log-probs that were sampled with.

    The engines are those of the recipe. Without `teacher.server` the student itself is put in the teacher's place;
    with one, the server must hold the student's weights for this check. Returns and stores the figures.

    Raises:
        TeacherError: `kl` is above `limit`, or the server fails.
        ConfigError, DataError, CheckpointError, SamplerError: see `vold.errors`.
    """
    recipe = recipe.with_align()
    if recipe.align is None:
        raise no_align()
    if recipe.teacher is None:
        raise ConfigError("this check needs a teacher", where="teacher", fix="add `teacher: {path: ...}`")
    directory = open_stage(recipe, "align")
    path = stage_models(recipe).get("sft", recipe.learner.path)
    student = load_student(recipe, path)
    backend: TeacherBackend = InProcessBackend(student, recipe.learner.dtype)
    with serving(recipe, "align") as served:
        if recipe.teacher.server is not None:
            backend = open_teachers(served, student).by_route[""].backend
        apart = _apart(served, recipe.align, student, backend, directory)
    row = apart.row()
    found = SelfCheck(
        student=path,
        tokens=apart.tokens,
        kl=apart.kl,
        kl_k1=row["mismatch_k1"],
        mean=row["mismatch_mean"],
        largest=apart.largest,
        limit=max(LIMITS[recipe.learner.dtype], LIMITS[recipe.teacher.dtype]),
    )
    write_json(directory / "self-check.json", found)
    if not found.kl <= found.limit:
        held = f"a server that holds {resolve(path)}" if backend.on_servers else "one device and one precision"
        raise TeacherError(
            "the student does not agree with itself in the teacher's place",
            where=backend.describe(),
            got=f"KL {found.kl:.2g} nats per token over {found.tokens} tokens, the limit is {found.limit:g}; "
            f"largest |log ratio| {found.largest:.2g}",
            fix=f"this check needs {held}",
        )
    return found


def _apart(recipe: Recipe, config: Align, student: Policy, backend: TeacherBackend, directory: Path) -> Mismatch:
    """Sampled and scored log-probs of the student's responses, compared token by token."""
    tasks = open_tasks(recipe.tasks, config.tasks)[: config.limit]
    prompts = _prompts(tasks, student, backend)
    temperature = config.sampling.temperature
    params = SamplingParams(config.sampling.max_new_tokens, temperature, seed_of(recipe.run.seed, "self-check"))
    sampler: Sampler = InProcessSampler(student)
    if recipe.distill is not None:
        sampler = open_sampler(recipe.distill, student, directory)
    completions = sampler.generate(prompts, params, config.rollouts)
    requests = [request_of(p, c.ids) for p, cs in zip(prompts, completions, strict=True) for c in cs]
    probe = probe_of_prompt(prompts[0])
    teacher = backend.scorer(probe, temperature=temperature, token_budget=8192)
    scores = teacher.score([probe, *requests])
    check_alive(scores[0], where="teacher")
    apart = Mismatch()
    for sampled, found in zip(itertools.chain(*completions), scores[1:], strict=True):
        apart.add(torch.tensor(found.logp), torch.tensor(sampled.logps))
    return apart


def _prompts(tasks: Sequence[Task], student: Policy, backend: TeacherBackend) -> list[Prompt]:
    """Those of the tasks that who stands in the teacher's place can be asked: where the recipe's teacher is not shown
    pictures its servers take none, and so only text can be compared.

    Raises:
        ConfigError: there are none.
    """
    seen = backend.chat.processor is not None
    asked = [t for t in tasks if seen or not any(m.images for m in t.messages)]
    if len(asked) < len(tasks):
        left = f"{len(tasks) - len(asked)} of {len(tasks)} problems have pictures"
        console.print(f"{left}, which this teacher is not shown: they are left out")
    if not asked:
        fix = "name a task set with problems in text, or a teacher that sees"
        raise ConfigError("no problem is left that this teacher can be asked about", where="align.tasks", fix=fix)
    return [student.chat.prompt(t.messages, t.id) for t in asked]
