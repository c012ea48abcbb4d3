"""`vold check`: everything about a recipe that can be known before anything is trained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from transformers import AutoConfig

from vold.data.benchmarks.registry import load
from vold.data.sources import open_tasks
from vold.engines.build import Teachers, check_rollouts
from vold.engines.teachers.health import probe_of
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.errors import ConfigError
from vold.evals.marking.golds import handle_golds
from vold.model.chat import Chat
from vold.model.loading import load_student, resolve
from vold.model.memory import in_words, plan
from vold.model.tokenizers import TURNS, compare
from vold.model.tokenizers import in_words as side_by_side
from vold.run.console import console
from vold.run.files import latest_checkpoint
from vold.types import Prompt

if TYPE_CHECKING:
    from vold.engines.build import Voice
    from vold.model.memory import Phase
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe


def check(recipe: Recipe) -> list[str]:
    """Plan memory, load models and data, compare vocabularies, grade every reference, fit prompts into context lengths,
    and score one prompt with the teacher. Nothing is written. Returns one line a check.

    Raises:
        VoldError: the first thing that would stop the run.
    """
    lines: list[str] = []

    def say(what: str, how: str) -> None:
        lines.append(f"{what}: {how}")
        console.print(f"  ok  [bold]{what}[/bold]  {how}")

    if recipe.distill is not None:
        for name in recipe.distill.objective.try_functions():
            say("function", f"{name} gives weights to two made-up rollouts")
    for phase in _memory(recipe):
        say(f"memory of {phase.name}", in_words(phase))
    student = load_student(recipe)
    lora = recipe.student.lora
    changed = f"{sum(p.numel() for _, p in student.trainable()):,}" if lora is None else f"adapters of rank {lora.rank}"
    everything = sum(p.numel() for p in student.model.parameters())
    say("student", f"{type(student.model).__name__}, {everything:,} parameters, {changed} trained")
    frozen = ", ".join(recipe.student.freeze) or "nothing"
    say("frozen", frozen)
    say("never sampled", f"{len(student.banned)} ids (vision placeholders and rows without a token)")
    context = _context(student)
    if recipe.teacher is not None:
        teachers = Teachers(recipe, student)
        for route, voice in teachers.voices.items():
            name = f"teacher for {route}" if route else "teacher"
            say(name, voice.describe())
            for what, how in _pair(recipe, student, voice):
                say(what, how)
            context = min(context, voice.context() or context)
    say("context", f"{context:,} tokens for prompt and response, the least of all models")
    sections = {"traces": recipe.traces, "align": recipe.align, "balance": recipe.balance, "distill": recipe.distill}
    plan = [(f"{name}.tasks", s.tasks, s.sampling) for name, s in sections.items() if s is not None]
    if recipe.eval is not None:
        plan += [(f"eval.tasks.{n}", spec, recipe.eval.sampling) for n, spec in recipe.eval.tasks.items()]
    if recipe.eval is not None:
        for name, wanted in recipe.eval.benchmarks.items():
            loaded = load(
                wanted.name or name,
                path=wanted.path,
                split=wanted.split,
                revision=wanted.revision,
                limit=wanted.limit,
            )
            kept, bad = handle_golds(loaded.items)
            left_out = f"{len(loaded.bad)} rows that cannot be used, {len(bad)} golds that do not grade themselves"
            say(f"eval.benchmarks.{name}", f"{len(kept)} items; left out: {left_out}")
    texts: list[Prompt] = []
    for name, spec, sampling in plan:
        tasks = open_tasks(spec, references=name != "traces.tasks")
        prompts: list[Prompt] = [student.chat.prompt(t.messages) for t in tasks[:64]]
        texts += [p for p in prompts if not p.vision][:1]
        longest = max(len(p.ids) for p in prompts)
        images = sum(len(m.images) for t in tasks[:64] for m in t.messages)
        room = longest + (wanted_tokens := sampling.max_new_tokens if sampling is not None else 0)
        if room > context:
            raise ConfigError(
                "prompt and response do not fit into the context",
                where=f"{name} and its max_new_tokens",
                got=f"{longest} + {wanted_tokens} tokens, context {context}",
                fix=f"set max_new_tokens to {context - longest} or less",
            )
        view = f", {images} images in the first {len(prompts)}" if images else ""
        graded = "" if name == "traces.tasks" else "every reference grades itself 1.0, "
        say(name, f"{len(tasks)} tasks, {graded}prompts up to {longest} tokens{view}")
    if recipe.teacher is not None and texts:
        request = probe_of(texts[0].ids)
        (own,) = InProcessTeacher(student, temperature=1.0, token_budget=len(texts[0].ids) + 1).score([request])
        scored = {"student": sum(own.logp) / len(own.logp)}
        scored |= {f"teacher {route}".strip(): mean for route, mean in teachers.probe(texts[0].ids).items()}
        means = ", ".join(f"{name} {mean:.2f}" for name, mean in scored.items())
        say("one prompt scored by all", f"{means} nats per token")
    if recipe.distill is not None:
        d = recipe.distill
        if d.engine is not None:
            say("rollout servers", check_rollouts(d, student, prompts[0], recipe.run.dir))
        say("step", f"{d.prompts_per_step} prompts x {d.rollouts} rollouts, {d.steps} steps, {d.objective.method}")
        say("asked of the teacher", d.objective.needs.words)
    for stage in ("sft", "distill"):
        found = latest_checkpoint(recipe.run.dir / stage)
        if found is not None:
            say(f"{stage} continues", f"from {found.name}")
    return lines


def _memory(recipe: Recipe) -> list[Phase]:
    """The memory plan; nothing where a config cannot be read, which loading the model reports better."""
    teacher = recipe.teacher if recipe.teacher is not None and recipe.teacher.server is None else None
    try:
        ours = AutoConfig.from_pretrained(resolve(recipe.student.path))
        theirs = AutoConfig.from_pretrained(resolve(teacher.path)) if teacher is not None else None
    except (OSError, ValueError, KeyError):
        return []
    return plan(recipe, ours, theirs, devices=int(os.environ.get("WORLD_SIZE", "1")))


def _pair(recipe: Recipe, student: Policy, voice: Voice) -> list[tuple[str, str]]:
    """Two models' tokenizers, embeddings and templates side by side, before any token is added to the student."""
    ours, theirs = Chat.load(resolve(recipe.student.path)).tokenizer, voice.chat.tokenizer
    if voice.aligner is not None:
        ids = ours(" ".join(t["content"] for t in TURNS), add_special_tokens=False)["input_ids"]
        spans = voice.aligner.align(ids).spans
        got = sum(s is not None for s in spans)
        return [
            ("another tokenizer", f"{got} of {len(spans)} tokens of a short text are whole tokens of the teacher's")
        ]
    config = AutoConfig.from_pretrained(resolve(voice.spec.path))
    found = compare(ours, theirs, student.model.config, config)
    added = recipe.student.teacher_tokens == "add" and voice.spec is recipe.teacher
    return side_by_side(found, len(ours), len(theirs), added=added)


def _context(policy: Policy) -> int:
    return int(policy.model.config.get_text_config().max_position_embeddings)
