"""`vold check`: everything about a recipe that can be known before anything is trained."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vold.data.benchmarks.registry import get_benchmark, load
from vold.engines.chat_api import EndpointSampler
from vold.engines.launch.devices import check_devices
from vold.engines.launch.wanted import JUDGE, servers_of
from vold.engines.samplers.student import check_rollouts
from vold.engines.teachers.health import probe_of
from vold.engines.teachers.inprocess import InProcessBackend
from vold.errors import CheckpointError, ConfigError
from vold.evals.certificates import certificates
from vold.evals.data_doubts import data_doubts, uniform
from vold.evals.disk import begun, disk, places
from vold.evals.marking.golds import handle_golds
from vold.evals.overlap import token_values
from vold.evals.own_code import own_code
from vold.evals.published import left_out, share_of_items
from vold.evals.recipe_doubts import named_files, recipe_doubts
from vold.evals.subject import PROMPTS, Finding, Subject
from vold.evals.watched import watched
from vold.model.cards import CARDS, GIB, cures, highest, in_words, smaller_card, smallest_card
from vold.model.chat import Chat
from vold.model.compiling import need_compiler
from vold.model.footprint import footprint
from vold.model.memory import device_memory, inprocess_teachers, plan
from vold.model.pace import H200, at, sizes_of, step
from vold.model.phases import phase_text
from vold.model.quantized import need_library
from vold.model.reading import read_config
from vold.model.together import refuse_together
from vold.model.tokenizers import TURNS, pair_tokenizers, pairing_lines
from vold.run.cluster_section import training_processes
from vold.run.console import console
from vold.run.folders import latest_checkpoint
from vold.run.precision import settled
from vold.run.shipped import resolve
from vold.types import Message, Prompt, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vold.engines.teachers.teachers import TeacherHandle
    from vold.evals.subject import TaskSet
    from vold.model.phases import PhaseMemory
    from vold.run.recipe import Recipe


def check(recipe: Recipe) -> list[str]:
    """Plan memory and disk, load models and data, compare vocabularies, grade every reference, fit prompts into context
    lengths, and score one prompt with all models. Nothing that is written stays.

    Returns one line a check. Those that begin with `warn: ` stop no run, but are likely not meant.

    Raises:
        VoldError: the first thing that would stop the run.
    """
    lines: list[str] = []
    subject = Subject(settled(recipe))
    checks = [one for one in CHECKS if recipe.uses_student or one not in OF_THE_STUDENT]
    for found in (found for one in checks for found in one(subject)):
        mark = ("warn  ", "bold yellow") if found.warns else ("  ok  ", "")
        lines.append(f"{'warn: ' * found.warns}{found.what}: {found.how}")
        console.print(Text.assemble(mark, (found.what, "bold"), f"  {found.how}"))
    if warnings := sum(line.startswith("warn: ") for line in lines):
        console.print(f"{warnings} warning{'s' * (warnings > 1)}: nothing that stops a run, and likely not meant")
    return lines


def _functions(subject: Subject) -> Iterator[Finding]:
    distill = subject.recipe.distill
    for name in distill.objective.try_functions() if distill is not None else ():
        yield Finding("function", f"{name} gives weights to two made-up rollouts")


def _memory(subject: Subject) -> Iterator[Finding]:
    """A config that lies is refused by loading the model, which says more than planning for it."""
    recipe = subject.recipe
    configs = {m.path: read_config(resolve(m.path)) for m in (recipe.learner, *inprocess_teachers(recipe))}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    node = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    if recipe.cluster is not None:
        node = max(1, training_processes(recipe))
        world = node * recipe.cluster.nodes

    def planned(of: Recipe) -> list[PhaseMemory]:
        refuse_together(of, world, "sft", "distill")
        return plan(of, *(configs[m.path] for m in (of.learner, *inprocess_teachers(of))), devices=world, node=node)

    refuse_together(recipe, world, "sft", "distill")
    try:
        phases = planned(recipe)
    except Exception:
        _ = subject.student, subject.teachers
        raise
    room = device_memory(recipe.run.device)
    for phase in phases:
        short = phase.total > room
        over = f"; the device has {room / GIB:.2f} GiB" * short
        yield Finding(f"memory of {phase.name}", phase_text(phase) + over, short)
    yield from _cards(recipe, phases, planned, room)
    if recipe.distill is not None and recipe.run.device != "cpu":
        yield Finding("seconds a step on GPUs", _seconds(recipe, configs, phases, (world, world // node)))


def _cards(
    recipe: Recipe, phases: Sequence[PhaseMemory], planned: Callable[[Recipe], Sequence[PhaseMemory]], room: int
) -> Iterator[Finding]:
    """The smallest card that holds the run, and keys that make it fit this device, or the next smaller card."""
    if not phases:
        return
    most = highest(phases)
    if most.total > room:
        found = cures(recipe, planned, room)
        yield Finding("to fit this device", in_words(found) if found else "no key of the recipe is enough")
    card = smallest_card(most.total)
    holds = f"{card}" if card is not None else "none that is planned for"
    yield Finding("smallest card", f"{holds}; {most.name} needs {most.total / GIB:.2f} GiB")
    if (smaller := smaller_card(card)) is not None:
        found = cures(recipe, planned, int(CARDS[smaller] * GIB))
        yield Finding(f"on a card of {smaller}", in_words(found) if found else "no key of the recipe is enough")


def _seconds(recipe: Recipe, configs: Mapping[str, Any], phases: Sequence[PhaseMemory], layout: tuple[int, int]) -> str:
    """By the arithmetic of docs/scaling.md, and at the rates of docs/gpu.md."""
    distill, teachers = recipe.distill, inprocess_teachers(recipe)
    assert distill is not None
    ours = footprint(configs[recipe.learner.path], recipe.learner.dtype, recipe.learner)
    theirs = footprint(configs[teachers[0].path], teachers[0].dtype) if teachers else None
    sizes = sizes_of(recipe, ours, theirs)
    plain = step(sizes, *layout)
    moved = sum(p.moved for p in phases)
    real = at(H200, sizes, *layout, in_process=distill.engine is None, moved=moved)
    names = ("rollouts", "teacher", "update, products", "update, exchange", "copies")
    by = [", ".join(f"{n} {v[n]:.3g}" for n in names if v.get(n)) for v in (plain, real)]
    return f"{by[0]} by arithmetic; at the rates measured on an {H200.card}: {by[1]}"


def _student(subject: Subject) -> Iterator[Finding]:
    student, config = subject.student, subject.recipe.learner
    models = {"student": config, **{f"teacher {t.path}": t for t in inprocess_teachers(subject.recipe)}}
    yield Finding("dtype", ", ".join(f"{name} in {model.dtype}" for name, model in models.items()))
    trained = f"{sum(p.numel() for _, p in student.trainable()):,}"
    changed = trained if config.lora is None else f"adapters of rank {config.lora.rank}"
    everything = sum(p.numel() for p in student.model.parameters())
    if config.quantize is not None:
        need_library("student.quantize")
    for name in ("sft", "distill"):
        if (stage := getattr(subject.recipe, name)) is not None and stage.optimizer.moments is not None:
            need_library(f"{name}.optimizer.moments")
    if config.compile:
        need_compiler(student.model.device)
        yield Finding("compile", "each layer, for training passes")
    yield Finding("student", f"{type(student.model).__name__}, {everything:,} parameters, {changed} trained")
    yield Finding("frozen", ", ".join(config.freeze) or "nothing")
    yield Finding("never sampled", f"{len(student.banned)} ids (vision placeholders and rows without a token)")


def _other_models(subject: Subject) -> Iterator[Finding]:
    """What stages start from, and what is evaluated beside the student: that it is there."""
    r = subject.recipe
    named = {f"{n}.init": getattr(s, "init", None) for n, s in r.stages_with_tasks.items()}
    if r.eval is not None and r.eval.endpoint is None:
        named |= {f"eval.models.{name}": path for name, path in (r.eval.models or {}).items()}
    for key, path in named.items():
        if path is not None:
            yield Finding(key, f"{path}, {read_config(resolve(path)).model_type}")


def _launched(subject: Subject) -> Iterator[Finding]:
    """Servers that stages will start: which, and where. None is started."""
    recipe = subject.recipe
    for stage in (*recipe.stages, JUDGE):
        servers = servers_of(recipe, stage)
        check_devices(recipe, stage, servers)
        if servers:
            name = "servers of the judge" if stage == JUDGE else f"servers of {stage}"
            yield Finding(name, "; ".join(f"{one.name}: {one}" for one in servers))


def _teachers(subject: Subject) -> Iterator[Finding]:
    for route, teacher in subject.teachers.by_route.items():
        words = teacher.spec.path if teacher.launched else teacher.backend.describe()
        yield Finding(f"teacher for {route}" if route else "teacher", words)
        yield from _pair(subject, teacher)
    contrast = subject.teachers.contrast
    for route, teacher in contrast.by_route.items() if contrast is not None else ():
        words = teacher.spec.path if teacher.launched else teacher.backend.describe()
        yield Finding(f"asked again for {route}" if route else "asked again", words)


def _pair(subject: Subject, teacher: TeacherHandle) -> Iterator[Finding]:
    """Two models' tokenizers, embeddings and templates side by side, before any token is added to the student."""
    recipe = subject.recipe
    ours, theirs = Chat.load(resolve(recipe.learner.path)).tokenizer, teacher.backend.chat.tokenizer
    if teacher.aligner is not None:
        ids = ours(" ".join(t["content"] for t in TURNS), add_special_tokens=False)["input_ids"]
        spans = teacher.aligner.align(ids).spans
        got = sum(s is not None for s in spans)
        words = f"{got} of {len(spans)} tokens of a short text are whole tokens of the teacher's"
        yield Finding("another tokenizer", words)
        return
    config = read_config(resolve(teacher.spec.path))
    found = pair_tokenizers(ours, theirs, subject.student.model.config, config)
    added = recipe.learner.teacher_tokens == "add" and teacher.spec is recipe.teacher
    yield from itertools.starmap(Finding, pairing_lines(found, len(ours), len(theirs), added=added))


def _context(subject: Subject) -> Iterator[Finding]:
    yield Finding("context", f"{subject.context:,} tokens for prompt and response, the least of all models")


def _servers(subject: Subject) -> Iterator[Finding]:
    """The server whose model is tested and the judge's: each answers a short question."""
    section = subject.recipe.eval
    named = {"endpoint": section.endpoint, "judge": section.judge} if section is not None else {}
    for key, server in named.items():
        if server is not None and server.urls:
            reply = EndpointSampler(server).chat((Message("user", TURNS[0]["content"]),), SamplingParams(16))
            refused = f" refuses a short question: {reply.error}" if reply.error else " answers"
            where = ", ".join(server.urls)
            yield Finding(f"eval.{key}", f"{server.model} on {where}{refused}", bool(reply.error))


def _benchmarks(subject: Subject) -> Iterator[Finding]:
    section = subject.recipe.eval
    for name, wanted in section.benchmarks.items() if section is not None else ():
        loaded = load(
            wanted.name or name, path=wanted.path, split=wanted.split, revision=wanted.revision, limit=wanted.limit
        )
        kept, bad = handle_golds(loaded.items, wanted.protocol)
        size = get_benchmark(wanted.name or name).size[loaded.split]
        missing = left_out(size, loaded, wanted.limit, len(bad))
        yield Finding(f"eval.benchmarks.{name}", share_of_items(len(kept), size, missing))


def _while_training(subject: Subject) -> Iterator[Finding]:
    for stage in ("sft", "distill"):
        section = getattr(subject.recipe, stage)
        if section is not None and section.eval is not None:
            sets = watched(subject.recipe, stage, section.eval).sets
            asked = ", ".join(f"{len(one.questions)} of {one.name}" for one in sets)
            yield Finding(f"{stage}.eval", f"{asked}, {len(section.eval.times(section.steps))} times")


def _tasks(subject: Subject) -> Iterator[Finding]:
    for these in subject.task_sets:
        images = sum(len(m.images) for t in these.tasks[:PROMPTS] for m in t.messages)
        view = f", {images} images in the first {min(PROMPTS, len(these.tasks))}" if images else ""
        graded = ", every reference grades itself 1.0" if these.graded else ""
        length = f", prompts up to {_longest(subject, these)} tokens" if subject.recipe.uses_student else ""
        yield Finding(these.key, f"{len(these.tasks)} tasks{graded}{length}{view}")


def _longest(subject: Subject, these: TaskSet) -> int:
    """Tokens of the longest of the first prompts, for which there must be room in every context."""
    prompt = max((*these.prompts, *these.told), key=lambda p: len(p.ids))
    longest = len(prompt.ids)
    if longest + max(these.max_new_tokens, 1) > subject.context:
        room = subject.context - longest
        raise ConfigError(
            "prompt and response do not fit into the context",
            where=f"{these.key} and its max_new_tokens, problem {prompt.task}",
            got=f"{longest} + {these.max_new_tokens} tokens, context {subject.context}",
            fix=f"set max_new_tokens to {room} or less"
            if room > 0
            else "leave out prompts as long as this, or take "
            "models of a longer context: this one leaves no token for an answer",
        )
    return longest


def _one_prompt(subject: Subject) -> Iterator[Finding]:
    """The first prompt without pictures, scored by every model."""
    found = [p for these in subject.task_sets for p in these.prompts if not p.vision and len(p.ids) > 2]
    text = found[0] if found else subject.student.chat.prompt([Message("user", TURNS[0]["content"])])
    request = probe_of(text.ids)
    own = token_values(subject.student, [Prompt(request.prompt_ids)], [request.response_ids], 1.0)
    if not bool((own["logp"] <= 1e-3).all()):
        raise CheckpointError(
            "the student gives numbers that are no log-probs",
            where=subject.recipe.learner.path,
            got=str(own["logp"][:4].tolist()),
            fix="save or download the model again: its weights are damaged",
        )
    yield from uniform("student", subject.student, own["entropy"])
    if not subject.teachers.by_route or not found:
        return
    for route, handle in subject.teachers.by_route.items():
        if isinstance(handle.backend, InProcessBackend):
            theirs, asked = handle.backend.policy, probe_of(handle.own_ids(text.ids))
            values = token_values(theirs, [Prompt(asked.prompt_ids)], [asked.response_ids], 1.0)
            yield from uniform(f"teacher {route}".strip(), theirs, values["entropy"])
    scored = {"student": float(own["logp"].mean())}
    scored |= {f"teacher {route}".strip(): mean for route, mean in subject.teachers.probe(text.ids).items()}
    means = ", ".join(f"{name} {mean:.2f}" for name, mean in scored.items())
    yield Finding("one prompt scored by all", f"{means} nats per token")


def _shown(subject: Subject) -> Iterator[Finding]:
    """A problem with pictures, scored by teachers on servers that are shown such."""
    sets = [these for these in subject.task_sets if not these.key.startswith("eval.")]
    if subject.teachers.by_route:
        tasks = [task for these in sets for task in these.tasks[:PROMPTS]]
        for route, mean in subject.teachers.probe_shown(tasks).items():
            yield Finding(f"pictures shown to teacher {route}".strip(), f"{mean:.2f} nats per token of the text behind")


def _distill(subject: Subject) -> Iterator[Finding]:
    d = subject.recipe.distill
    if d is None:
        return
    if d.engine is not None and d.engine.launch is None and not d.engine.colocate:  # vLLM starts once in a process
        prompts = next(these.prompts for these in subject.task_sets if these.key == "distill.tasks")
        servers = check_rollouts(d, subject.student, prompts[0], subject.recipe.run.dir)
        yield Finding("rollout servers", servers)
    yield Finding(
        "step", f"{d.prompts_per_step} prompts x {d.rollouts} rollouts, {d.steps} steps, {d.objective.method}"
    )
    yield Finding("asked of the teacher", d.objective.needs.words)


def _checkpoints(subject: Subject) -> Iterator[Finding]:
    for stage in ("sft", "distill"):
        directory, section = subject.recipe.run.dir / stage, getattr(subject.recipe, stage)
        if section is not None and (found := latest_checkpoint(directory)) is not None:
            done = (directory / "final").is_dir() and found.name == f"step-{section.steps:06d}"
            yield Finding(stage, f"done, {section.steps} steps" if done else f"continues from {found.name}")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    places, named_files, begun, recipe_doubts, _functions, own_code, _memory, _launched, _student, certificates,
    _other_models, _teachers, _context, _servers, _benchmarks, _while_training, _tasks, disk, _one_prompt, _shown,
    data_doubts, _distill, _checkpoints,
)  # fmt: skip
"""In this order: what costs nothing first."""
OF_THE_STUDENT = (_memory, _student, certificates, _teachers, _context, _one_prompt, _shown)
"""Those that say nothing of a recipe which only asks a server."""
