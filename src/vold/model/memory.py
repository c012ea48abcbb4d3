"""What every phase of a run needs of a device, from the models' config.json files and the recipe alone.

All sizes are bytes. They hold for a GPU, and for a CPU but for what is said there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vold.model.footprint import Footprint, footprint
from vold.model.lm_head.chunked_logits import chunk_elements
from vold.model.passes import PROMPT_TOKENS as PROMPT_TOKENS
from vold.model.passes import logits, sampling, scoring
from vold.model.phases import BESIDE, PhaseMemory
from vold.run.looks import asked_while_training
from vold.run.precision import precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vold.run.model_sections import RolloutServer, Server
    from vold.run.recipe import Distill, Optimizer, Recipe, Sft, Within
    from vold.run.teacher_sections import ScoringModel

CONTEXT = 6 * 2**30 // 10
"""What a process takes of a GPU before its first tensor: CUDA's context and the code of kernels."""
ALIGN_TOKENS = 8192
"""Tokens of a pass in which `vold align` reads answers, see `vold.evals.overlap`."""
SLACK = 32
"""A part in so many is lost between tensors in PyTorch's allocator: of the peaks measured so far, 3 % at most."""
ASLEEP = CONTEXT + 2**30
"""What a vLLM server leaves on a GPU while it sleeps: its context, and an assumed 1 GiB of graphs and buffers."""
SERVED_ROWS = 8
"""Whole responses for whose keys and values a server is to have room. With fewer it works, and stops rows in turns."""
SERVING = 2 * 2**30
"""Activations and graphs of a server that is awake: an assumption."""


@dataclass
class Plan:
    """The needs of a recipe's models, and the phases made of them."""

    recipe: Recipe
    student: Footprint
    teachers: list[Footprint]
    devices: int
    parts: int
    teacher_parts: int = 1
    phases: list[PhaseMemory] = field(default_factory=list)

    def held(self, optimizer: Optimizer, *, average: bool = False) -> dict[str, int]:
        """What training by this rule holds of the student, and of a running average of it."""
        ours, each = self.student, self.parts
        # Several processes keep what is trained in float32 alone, which counts as the optimizer's copy.
        weights = ours.weights - (ours.size * ours.trained_low if self.devices > 1 else 0)
        moments = 8 * ours.trained if optimizer.moments is None else ours.moments
        moments += 4 * ours.trained * average
        out = {
            "weights": weights // each,
            "gradients": 4 * ours.trained // each,
            "optimizer": (moments + 4 * ours.trained_low) // each,
        }
        if self.recipe.run.device == "cpu":  # beside a GPU they are in the host's memory
            trained = 4 * ours.trained - (4 - ours.size) * ours.trained_low
            out["copies that are written"] = trained // each + out["optimizer"]
        return out

    @property
    def plain(self) -> dict[str, int]:
        """What a stage holds of the student that does not train it."""
        return {"weights": self.student.loaded}

    def training(self, optimizer: Optimizer, *, average: bool = False) -> dict[str, int]:
        """What an update by this rule holds besides its micro-batch."""
        ours, out = self.student, self.held(optimizer, average=average)
        if self.devices > 1 and self.recipe.run.exchange == "step":
            out["whole weights and gradients"] = ours.weights + 4 * ours.trained
        elif self.devices > 1:
            # The embeddings, the head and the tower for the whole step, a layer and the one after it; in float32
            # what is added up of a layer's gradients, or of the embedding's.
            out["gathered groups"] = ours.size * (ours.outside + 2 * ours.layer) + 4 * max(ours.head, ours.layer)
        return out

    def add(self, name: str, *parts: Mapping[str, int], moved: int = 0) -> None:
        """A phase that holds these parts, and what any phase of a GPU costs."""
        made = {k: v for part in parts for k, v in part.items()}
        if self.recipe.run.device != "cpu":
            made["allocator"] = sum(v for k, v in made.items() if k not in BESIDE) // SLACK
            made["context"] = CONTEXT
        self.phases.append(PhaseMemory(name, made, moved))


def plan(
    recipe: Recipe,
    student: Any,
    teacher: Any | None = None,
    *others: Any,
    devices: int = 1,
    node: int | None = None,
    divided: Within | None = None,
) -> list[PhaseMemory]:
    """The phases of a recipe on each of `devices` devices.

    The student's weights, gradients and optimizer state are divided over the devices of a node, or all with
    `run.shard: world`; rollouts over all. A micro-batch is not, nor are weights and gradients during an update with
    `run.exchange: step`. A teacher or sampler on
    servers of its own takes nothing here, unless they sleep in turns: then they are taken to share the device.

    Args:
        recipe: says how the models are used.
        student: the student's Transformers config.
        teacher: that of the first of `inprocess_teachers`; None where there is none in this process.
        others: those of the rest.
        devices: how many train the student.
        node: how many of them a node has; all by default.
        divided: which of them divide the teachers as well; None where each has whole ones.
    """
    configs = [c for c in (teacher, *others) if c is not None]
    parts = devices if node is None or recipe.run.shard == "world" else node
    ours, teachers = recipe.learner, zip(inprocess_teachers(recipe), configs, strict=False)
    theirs = [footprint(c, precision(recipe, t.path, t.dtype), quantize=t.quantize) for t, c in teachers]
    shape = footprint(student, precision(recipe, ours.path, ours.dtype), ours)
    p = Plan(recipe, shape, theirs, devices, parts, {None: 1, "node": node or devices, "world": devices}[divided])
    _plan_traces(p)
    if recipe.sft is not None:
        longest = recipe.traces.max_tokens or 0 if recipe.traces is not None else 0
        p.add("sft", p.training(recipe.sft.optimizer), _pass(p, _longest(recipe.sft.token_budget, longest)))
        _plan_save(p, "sft, model written", _waiting(p.held(recipe.sft.optimizer)))
        _plan_looks(p, "sft", recipe.sft, _waiting(p.held(recipe.sft.optimizer)))
    _plan_align(p)
    if (b := recipe.balance) is not None and b.engine is None:
        p.add("balance", p.plain, sampling(p.student, b.rows, b.sampling.max_new_tokens, b.rollouts))
    if recipe.distill is not None:
        _plan_distill(p, recipe.distill)
    if (e := recipe.eval) is not None and e.endpoint is None:
        p.add("eval", p.plain, sampling(p.student, e.batch_size, e.sampling.max_new_tokens, 1))
    return p.phases


def divides_teachers(
    recipe: Recipe, student: Any, *teachers: Any, devices: int, room: int, node: int | None = None
) -> Within | None:
    """Over which devices, with `room` bytes each, `run.shard_teacher` divides the teachers: those of a node, or all
    where only that makes a phase fit. `auto` divides them where a phase does not fit otherwise. The rest is as in
    `plan`."""
    how = recipe.run.shard_teacher
    if devices == 1 or not teachers or how == "never":
        return None
    ways: tuple[Within | None, ...] = (None, "node", "world")
    whole, near, far = (plan(recipe, student, *teachers, devices=devices, node=node, divided=w) for w in ways)

    def helps(more: list[PhaseMemory], fewer: list[PhaseMemory]) -> bool:
        return any(m.total > room and f.total < m.total for m, f in zip(more, fewer, strict=True))

    if helps(near, far):
        return "world"
    return "node" if how == "always" or helps(whole, near) else None


def inprocess_teachers(recipe: Recipe) -> list[ScoringModel]:
    """Teachers that are loaded into this process, each set of weights once."""
    found = {(t.path, t.weights_in): t for t in reversed(recipe.scoring_models) if t.place == "inprocess"}
    return [*reversed(found.values())]


def align_rows(recipe: Recipe) -> int:
    """Responses that `vold align` samples side by side: as many as stage 2, or 128."""
    return 128 if recipe.distill is None else recipe.distill.batch_size


def device_memory(device: str) -> int:
    """Bytes of memory of the device that `run.device` names: a GPU's, or the machine's."""
    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _plan_traces(p: Plan) -> None:
    t = p.recipe.traces
    if t is not None and t.sampling is not None and t.answers == "teacher" and p.teachers:
        made = sampling(p.teachers[0], t.batch_size, t.sampling.max_new_tokens, 1)
        p.add("traces", p.plain, _loaded(p.teachers), made)


def _plan_align(p: Plan) -> None:
    """Student and teachers stay on the device: the student answers, and then all of them read the answers."""
    a = p.recipe.align
    if a is None:
        return
    tokens, chunk = _longest(ALIGN_TOKENS, a.sampling.max_new_tokens), chunk_elements(p.recipe.run.device)
    answers = sampling(p.student, align_rows(p.recipe), a.sampling.max_new_tokens, a.rollouts, pictures=False)
    read = [scoring(f, tokens, chunk) for f in (p.student, *p.teachers)]
    p.add("align", p.plain, _loaded(p.teachers), max(answers, *read, key=lambda parts: sum(parts.values())))


def _loaded(teachers: Sequence[Footprint]) -> dict[str, int]:
    """What teachers take that stay on the device."""
    weights = sum(f.weights for f in teachers)
    return {"teacher": weights} if weights else {}


def _plan_distill(p: Plan, d: Distill) -> None:
    """Gradients are dropped after each update; weights and optimizer state stay through every phase."""
    itself = p.recipe.taught_by_itself
    average = itself == "ema"
    away, ours, held = p.recipe.run.offload, p.student, p.held(d.optimizer, average=average)
    idle = {k: v for k, v in _waiting(held).items() if not (away and k == "optimizer")}
    asleep = [s for s in _servers(p.recipe) if s.sleep]
    sleeping = {"servers asleep": len(asleep) * ASLEEP} if asleep else {}
    beside = {"teacher": weights} if (weights := _teacher_weights(p, d)) else {}
    beside |= {"reference": weights} if (weights := _reference_weights(p, d)) else {}
    gathered = _gathered_teacher(p)
    waiting = {} if away else beside
    tokens = _longest(d.token_budget, d.sampling.max_new_tokens)
    if d.engine is None:
        whole = {"whole weights": ours.weights} if p.devices > 1 else {}
        rows = min(-(-d.prompts_per_step // p.devices) * d.rollouts, d.rows)
        sampled = sampling(ours, rows, d.sampling.max_new_tokens, d.rollouts, pictures=False)
        p.add("rollouts", idle, waiting, sleeping, whole, sampled)
        _plan_looks(p, "distill", d, {**idle, **waiting, **sleeping})
    elif d.engine.sleep or d.engine.colocate:
        p.add(
            "rollouts, on a server" if d.engine.sleep else "rollouts, vLLM in this process",
            idle,
            waiting,
            _awake(p, d, d.engine, len(asleep) + d.engine.colocate),
        )
    if beside or itself is not None:
        mine = "reference" in beside or itself is not None
        asked = [*(p.teachers if "teacher" in beside else []), *([ours] if mine else [])]
        put_aside = {"student meanwhile": ours.size * ours.trained} if average else {}
        scored = [scoring(f, tokens, chunk_elements(p.recipe.run.device)) for f in asked]
        most = max(scored, key=lambda parts: sum(parts.values()))
        p.add("teacher scoring", idle, beside, put_aside, gathered, sleeping, most, moved=sum(beside.values()) * away)
        _plan_compared(p, {**idle, **beside, **sleeping}, tokens)
    there = {**beside, **gathered} if d.objective.needs.logits else waiting
    buffers = 4 if d.objective.needs.logits else 2  # the teacher's logits too, and at most one of their probabilities
    moved = 2 * held["optimizer"] * away
    p.add("update", p.training(d.optimizer, average=average), there, sleeping, _pass(p, tokens, buffers), moved=moved)
    _plan_save(p, "weights written", {**idle, **waiting, **sleeping})


def _plan_looks(p: Plan, name: str, stage: Sft | Distill, beside: Mapping[str, int]) -> None:
    """Answers between two steps, on every process."""
    if stage.eval is None:
        return
    asked, side_by_side = asked_while_training(p.recipe, stage.eval)
    rows = min(side_by_side, -(-stage.eval.size // p.devices))
    whole = {"whole weights": p.student.weights} if p.devices > 1 else {}
    p.add(f"{name}, evaluation", beside, whole, sampling(p.student, rows, asked.max_new_tokens, 1))


def _waiting(held: Mapping[str, int]) -> dict[str, int]:
    """What training holds of the student between updates."""
    return {k: v for k, v in held.items() if k != "gradients"}


def _gathered_teacher(p: Plan) -> dict[str, int]:
    """Of a teacher that processes divide: the embeddings and the head for its whole turn, a layer and the one after
    it."""
    layers = [f.size * (f.outside + 2 * f.layer) for f in p.teachers if p.teacher_parts > 1]
    return {"gathered teacher": max(layers)} if layers else {}


def _reference_weights(p: Plan, d: Distill) -> int:
    """What the reference holds: frozen weights are the student's where one process has them, and where adapters are all
    that is trained, all are."""
    if d.objective.reference is None or p.recipe.learner.lora is not None:
        return 0
    return p.student.weights if p.devices > 1 else p.student.size * p.student.trained


def _plan_compared(p: Plan, there: Mapping[str, int], tokens: int) -> None:
    """Once a run the weights that a quantised teacher was made from pass through the device, a layer at a time."""
    chunk = chunk_elements(p.recipe.run.device)
    wholes = [(f.size * (f.outside + f.layer), scoring(f, tokens, chunk)) for f in p.teachers if f.unpacked]
    if wholes:
        whole, scored = max(wholes, key=lambda w: w[0] + sum(w[1].values()))
        p.add("teacher compared", there, {"teacher, not quantised": whole}, scored)


def _plan_save(p: Plan, name: str, beside: Mapping[str, int]) -> None:
    """Weights are written as they lie there; only adapters are added into them first, one after another."""
    if p.student.merged:
        p.add(name, beside, {"merging": p.student.merged})


def _teacher_weights(p: Plan, d: Distill) -> int:
    """What teachers hold; adapters leave the student's own weights as they are, so a teacher that it began as has
    none of its own, and elsewhere such a one shares what is frozen."""
    if not d.objective.uses_teacher:
        return 0
    lora, whole = p.recipe.learner.lora is not None, 0
    for f, t in zip(p.teachers, inprocess_teachers(p.recipe), strict=False):
        named = t.path == d.init and t.dtype == p.recipe.learner.dtype
        if not (lora and (named or t.is_the_start)):
            whole += p.student.size * p.student.trained if t.is_the_start and p.devices == 1 else f.weights
    return whole // p.teacher_parts


def _longest(budget: int, response: int) -> int:
    """Tokens of the largest micro-batch: a row that is longer than the budget has one of its own."""
    return max(budget, PROMPT_TOKENS + response)


def _servers(recipe: Recipe) -> Iterator[Server]:
    yield from (t.server for t in recipe.scoring_models if t.server is not None)
    if recipe.distill is not None and recipe.distill.engine is not None:
        yield recipe.distill.engine


def _awake(p: Plan, d: Distill, engine: RolloutServer, asleep: int) -> dict[str, int]:
    """A rollout server at work beside what the student leaves on the device."""
    rows = min(SERVED_ROWS, d.prompts_per_step * d.rollouts, engine.concurrency * d.rollouts)
    cache = rows * (PROMPT_TOKENS + d.sampling.max_new_tokens) * p.student.cached
    weights = p.student.parameters * p.student.size
    return {"server": weights + cache + SERVING + CONTEXT, "servers asleep": (asleep - 1) * ASLEEP}


def _pass(p: Plan, tokens: int, buffers: int = 2) -> dict[str, int]:
    """The higher of two peaks of a micro-batch: at the head, where all layers have passed, and in a layer's backward
    pass, where the tied embedding's gradient waits for that of the other end of the model."""
    ours, chunk = p.student, chunk_elements(p.recipe.run.device)
    states = 2 * tokens * ours.width * ours.size  # those of selected tokens, and their gradient
    rounded = ours.head * ours.size if ours.size < 4 else 0  # of the float32 sum over chunks, when they are gone
    most = max(logits(ours, tokens, chunk, buffers), rounded)
    head = {"activations": tokens * ours.kept + states, "head": 4 * ours.head + most}
    kept = (ours.size if ours.tied else 0) * ours.head
    layer = {"activations": tokens * (ours.kept + ours.working) + ours.unpacked, "head": kept}
    last = {"activations": 0, "head": (2 * ours.size + 4) * ours.head}  # both ends' gradients, and their float32 sum
    return max(head, layer, last, key=lambda parts: sum(parts.values()))
