"""What every phase of a run needs of a device's memory, from the models' config.json files and the recipe alone.

Nothing is loaded: models are built without storage (PyTorch's `meta` device), their parameters counted, and what one
layer keeps for its backward pass measured on shapes. All sizes are bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoModelForImageTextToText

from vold.model.families import family_of, part_of
from vold.model.lm_head.chunked_logits import chunk_elements
from vold.model.lora import add_adapters
from vold.model.policy import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.run.model_sections import Student
    from vold.run.recipe import Recipe

PROBE_TOKENS = 64
ATTENTION = "vold_memory"
"""The name under which Transformers finds `_attention`."""
PROMPT_TOKENS = 512
"""Tokens a prompt is taken to have: the plan is made before any is read. One with pictures may have more."""
SAMPLED_LOGIT = 32
"""Bytes for each id of each row while a token is drawn: logits and log-probs, and float64 rows of the inverse CDF."""


@dataclass(frozen=True)
class Footprint:
    """A model's needs.

    Attributes:
        parameters: how many there are.
        weights: their bytes.
        trained: how many of them training changes.
        trained_low: how many of these are below float32.
        kept: bytes kept for the backward pass for each token of a micro-batch.
        passing: bytes that come and go with a forward pass without gradients, for each token.
        cached: bytes of keys and values for each token of a response being sampled.
        head: bytes of the output embedding's own gradient while it is summed over chunks, where it is trained.
        vocabulary: embedding rows.
    """

    parameters: int
    weights: int
    trained: int
    trained_low: int
    kept: int
    passing: int
    cached: int
    head: int
    vocabulary: int


@dataclass(frozen=True)
class PhaseMemory:
    """One phase: bytes by what they are for, on each device."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes at the phase's peak."""
        return sum(self.parts.values())


def footprint(config: Any, dtype: str, student: Student | None = None) -> Footprint:
    """The needs of a model of this Transformers config; of one that is trained, where `student` says how."""
    kind, size = DTYPES[dtype], DTYPES[dtype].itemsize
    text = config.get_text_config()
    model = _shape(config, kind, text.num_hidden_layers, student)
    trained = [p for p in model.parameters() if p.requires_grad] if student is not None else []
    head = model.get_output_embeddings().weight
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    base, layer = (0, 0) if student is None else _kept(config, kind, student)
    layers = text.num_hidden_layers
    if student is not None and student.activation_checkpointing:
        kept = base + layers * text.hidden_size * size + layer
    else:
        kept = base + layers * layer
    summed = head.numel() * (4 if size == 4 else 4 + size) if any(p is head for p in trained) else 0
    return Footprint(
        parameters=sum(p.numel() for p in model.parameters()),
        weights=sum(p.numel() * p.itemsize for p in model.parameters()),
        trained=sum(p.numel() for p in trained),
        trained_low=sum(p.numel() for p in trained if p.itemsize < 4),
        kept=kept,
        passing=size * (3 * getattr(text, "intermediate_size", 4 * text.hidden_size) + 4 * text.hidden_size),
        cached=2 * layers * heads * width * size,
        head=summed,
        vocabulary=text.vocab_size,
    )


def plan(recipe: Recipe, student: Any, teacher: Any | None, *, devices: int = 1) -> list[PhaseMemory]:
    """The phases of a recipe on each of `devices` devices.

    The student's weights, gradients and optimizer state are divided over devices, as are rollouts; a micro-batch and
    a teacher are not, nor are weights and gradients during an update with `run.exchange: step`. A teacher or sampler on
    servers of its own takes nothing here. A head is read in the chunks of a GPU unless `run.device` says `cpu`.

    Args:
        recipe: says how the models are used.
        student: the student's Transformers config.
        teacher: the teacher's; None where there is none in this process.
        devices: how many share the student.
    """
    spec, chunk = recipe.student, chunk_elements(recipe.run.device)
    ours = footprint(student, spec.dtype, spec)
    theirs = footprint(teacher, recipe.teacher.dtype) if recipe.teacher is not None and teacher is not None else None
    held = {
        "weights": ours.weights // devices,
        "gradients": 4 * ours.trained // devices,
        "optimizer": (8 * ours.trained + 4 * ours.trained_low) // devices,
    }
    training = dict(held)
    if devices > 1 and recipe.run.exchange == "step":
        training["whole weights and gradients"] = ours.weights + 4 * ours.trained
    # Gradients are dropped after each update; weights and optimizer state stay through every phase of a stage.
    idle = {k: v for k, v in held.items() if k != "gradients"}
    phases = []
    if (t := recipe.traces) is not None and t.sampling is not None and theirs is not None and t.answers == "teacher":
        loaded = {"weights": ours.weights, "teacher": theirs.weights}
        phases.append(PhaseMemory("traces", {**loaded, **_sampling(theirs, t.batch_size, t.sampling.max_new_tokens)}))
    if recipe.sft is not None:
        phases.append(PhaseMemory("sft", {**training, **_pass(ours, recipe.sft.token_budget, chunk)}))
    if (d := recipe.distill) is not None:
        beside = {"teacher": theirs.weights} if theirs is not None and d.objective.uses_teacher else {}
        away = recipe.run.offload
        if away:  # see `vold.model.place`
            idle.pop("optimizer")
        if d.engine is None:
            rows = -(-d.prompts_per_step // devices) * d.rollouts
            there = {} if away else beside
            phases.append(
                PhaseMemory("rollouts", {**idle, **there, **_sampling(ours, rows, d.sampling.max_new_tokens)})
            )
        if beside and theirs is not None:
            scoring = {"activations": d.token_budget * theirs.passing, "head": _logits(theirs, d.token_budget, chunk)}
            phases.append(PhaseMemory("teacher scoring", {**idle, **beside, **scoring}))
        there = {} if away and not d.objective.needs.logits else beside
        buffers = (
            4 if d.objective.needs.logits else 2
        )  # the teacher's logits too, and at most one of their probabilities
        phases.append(PhaseMemory("update", {**training, **there, **_pass(ours, d.token_budget, chunk, buffers)}))
    if (e := recipe.eval) is not None and e.endpoint is None:
        answers = _sampling(ours, e.batch_size, e.sampling.max_new_tokens)
        phases.append(PhaseMemory("eval", {"weights": ours.weights, **answers}))
    return phases


def device_memory(device: str) -> int:
    """Bytes of memory of the device that `run.device` names: a GPU's, or the machine's."""
    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def phase_text(phase: PhaseMemory) -> str:
    """A phase as one line, in GiB (2^30 bytes); what is below a hundredth is left out."""
    sizes = {name: size / 2**30 for name, size in phase.parts.items()}
    parts = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items() if size >= 0.01)
    return f"{phase.total / 2**30:.2f} GiB" + (f" ({parts})" if parts else "")


def _pass(model: Footprint, tokens: int, chunk: int, buffers: int = 2) -> dict[str, int]:
    return {"activations": tokens * model.kept, "head": model.head + _logits(model, tokens, chunk, buffers)}


def _sampling(model: Footprint, rows: int, tokens: int) -> dict[str, int]:
    """Rows that generate side by side, each up to its last token."""
    return {"cache": rows * (PROMPT_TOKENS + tokens) * model.cached, "head": rows * model.vocabulary * SAMPLED_LOGIT}


def _logits(model: Footprint, tokens: int, chunk: int, buffers: int = 2) -> int:
    """Float32 buffers of a chunk of at most so many logits, see `vold.model.lm_head.fused`."""
    return buffers * 4 * min(chunk, tokens * model.vocabulary)


def _shape(config: Any, dtype: torch.dtype, layers: int, student: Student | None) -> Any:
    """A model without storage, frozen and with adapters as the recipe has it."""
    family = family_of(config)
    own = type(config).from_dict(config.to_dict())
    text = own.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    factory: Any = AutoModelForImageTextToText if family.tower else AutoModelForCausalLM
    with torch.device("meta"):
        model: Any = factory.from_config(own, dtype=dtype)
        if student is None:
            return model
        for name, parameter in model.base_model.named_parameters():
            parameter.requires_grad_(part_of(name, family) not in student.freeze)
        if student.lora is not None:
            add_adapters(model, family, rank=student.lora.rank, alpha=student.lora.alpha, seed=0)
    return model


def _kept(config: Any, dtype: torch.dtype, student: Student) -> tuple[int, int]:
    """Bytes a token leaves for the backward pass outside the layers, and inside each of them."""
    one, two = (_saved(_shape(config, dtype, n, student)) for n in (1, 2))
    return 2 * one - two, two - one


class _Kernel(torch.autograd.Function):
    """What a fused attention kernel keeps: its three inputs and its output."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        ctx.save_for_backward(query, key, value, out)
        return out


def _attention(_module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    kernel: Any = _Kernel.apply
    return kernel(query, key, value), None


def _saved(model: Any) -> int:
    """Bytes kept for the backward pass, a token, by a forward pass over shapes; weights not counted."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.int64, device="meta")
    axes = (3,) if family_of(model.config).rotates_by_grid else ()
    positions = torch.zeros((*axes, 1, PROBE_TOKENS), dtype=torch.int64, device="meta")
    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        output = model.base_model(input_ids=ids, attention_mask=None, position_ids=positions, use_cache=False)
    del output
    return sum(s.nbytes() for s in kept.values()) // PROBE_TOKENS
