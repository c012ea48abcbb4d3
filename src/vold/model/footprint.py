"""What a model needs of a device, from its config alone: nothing is loaded.

Models are built without storage (PyTorch's `meta` device), their parameters counted, and what a layer keeps for its
backward pass, and what comes and goes beside it, measured on shapes. All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from vold.model import moments
from vold.model.families import family_of, linear_layers, part_of, skeleton
from vold.model.lora import add_adapters
from vold.model.policy import DTYPES
from vold.model.quantized import stored_bytes
from vold.model.recompute import checkpoint_layers
from vold.model.shapes import PROBE_TOKENS, AliveBytes, run

if TYPE_CHECKING:
    from vold.model.quantized import Quantized
    from vold.run.model_sections import Student


@dataclass(frozen=True)
class Footprint:
    """A model's needs.

    Attributes:
        parameters: how many there are.
        weights: their bytes, quantised where they are.
        loaded: bytes of the model before it is quantised or gets adapters.
        trained: how many of them training changes.
        trained_low: how many of these are below float32.
        moments: bytes of the moments of what is trained, where they have 8 bits.
        kept: bytes kept for the backward pass for each token of a micro-batch.
        working: bytes that a layer's backward pass takes beside them for each token, with what it computes again.
        passing: bytes that come and go with a forward pass without gradients, for each token.
        seeing: the same in the vision tower, for each token of a picture.
        cached: bytes of keys and values for each token of a response being sampled.
        head: weights of the output embedding, where it is trained; else 0.
        tied: whether they are those of the input embedding.
        size: bytes of one weight.
        width: numbers of a hidden state.
        vocabulary: embedding rows.
        layer: weights of a layer.
        outside: weights of all that is no layer of the language model.
        text: weights of the language model, with its embeddings.
        merged: bytes that adding adapters into the largest weight takes; 0 without adapters.
        unpacked: bytes of the largest quantised weight while it is multiplied by; 0 without any.
    """

    parameters: int
    weights: int
    loaded: int
    trained: int
    trained_low: int
    moments: int
    kept: int
    working: int
    passing: int
    seeing: int
    cached: int
    head: int
    tied: bool
    size: int
    width: int
    vocabulary: int
    layer: int
    outside: int
    text: int
    merged: int
    unpacked: int


def footprint(
    config: Any, dtype: str, student: Student | None = None, *, quantize: Quantized | None = None
) -> Footprint:
    """The needs of a model of this Transformers config; of one that is trained, where `student` says how. One that is
    not trained may be quantised.

    What has been found is kept: plans are made again with one key changed.
    """
    how = None if student is None else student.model_dump_json(exclude={"path"})
    key = (config.to_json_string(), f"{dtype} {quantize}", how)
    if key not in _FOUND:
        found = _footprint(config, dtype, student)
        kind = quantize if student is None else student.quantize
        _FOUND[key] = found if kind is None else _quantized(found, config, kind)
    return _FOUND[key]


_FOUND: dict[tuple[str, str, str | None], Footprint] = {}


def _quantized(plain: Footprint, config: Any, kind: Quantized) -> Footprint:
    """The same model with its language model's linear layers quantised.

    A product unpacks the weight it multiplies by. In int8 it also has the states in float16 and int8, and what comes
    out in int32.
    """
    model = _shape(config, torch.bfloat16, config.get_text_config().num_hidden_layers, None)
    names = set(linear_layers(model.base_model, family_of(config)))
    linear = [m for n, m in model.base_model.named_modules() if n in names]
    saved = sum(m.weight.numel() * plain.size - stored_bytes(kind, *m.weight.shape) for m in linear)
    largest = max(m.weight.numel() for m in linear) * plain.size
    beside = max(3 * m.in_features + 4 * m.out_features for m in linear) if kind == "int8" else 0
    return replace(
        plain,
        weights=plain.weights - saved,
        working=plain.working + beside * bool(plain.trained),
        passing=plain.passing + beside,
        merged=plain.merged + largest * bool(plain.merged),
        unpacked=largest,
    )


def _footprint(config: Any, dtype: str, student: Student | None) -> Footprint:
    kind, size = DTYPES[dtype], DTYPES[dtype].itemsize
    text = config.get_text_config()
    layers, width = text.num_hidden_layers, text.hidden_size
    plain = None if student is None else student.model_copy(update={"lora": None})
    model = _shape(config, kind, layers, plain)
    head = model.get_output_embeddings().weight
    tied = model.get_input_embeddings().weight is head
    family = family_of(config)
    tower = sum(p.numel() for n, p in model.base_model.named_parameters() if part_of(n, family))
    sides, widest = _adapters(model, student)
    adapters = sum(sides)
    trained = [p for p in model.parameters() if p.requires_grad] if student is not None else []
    if adapters:  # the language model itself is frozen then
        named = model.base_model.named_parameters()
        trained = [p for n, p in named if p.requires_grad and part_of(n, family)]
    heads = _most(text, "num_key_value_heads") or _most(text, "num_attention_heads")
    count = sum(p.numel() for p in model.parameters())
    layer = count - sum(p.numel() for p in _shape(config, kind, layers - 1, plain).parameters())
    kept, working = (0, 0) if student is None else _for_training(config, kind, student)
    return Footprint(
        parameters=count + adapters,
        weights=count * size + 4 * adapters,
        loaded=count * size,
        trained=sum(p.numel() for p in trained) + adapters,
        trained_low=sum(p.numel() for p in trained if p.itemsize < 4),
        moments=sum(moments.stored_bytes(n) for n in (*(p.numel() for p in trained), *sides)),
        kept=kept,
        working=working,
        passing=_passing(config, kind),
        seeing=_seeing(config, size),
        cached=2 * layers * heads * _head_width(text) * size,
        head=head.numel() if any(p is head for p in trained) else 0,
        tied=tied,
        size=size,
        width=width,
        vocabulary=text.vocab_size,
        layer=layer,
        outside=count - layers * layer,
        text=count - tower,
        merged=widest * (4 + 4 + size),  # the product of the adapters, the sum, and that rounded
        unpacked=0,
    )


def _adapters(model: Any, student: Student | None) -> tuple[list[int], int]:
    """How many numbers each side of a student's adapters has, and the largest weight that has some."""
    if student is None or student.lora is None:
        return [], 0
    names = set(linear_layers(model.base_model, family_of(model.config)))
    linear = [m for n, m in model.base_model.named_modules() if n in names]
    sides = [student.lora.rank * n for m in linear for n in (m.in_features, m.out_features)]
    return sides, max(m.weight.numel() for m in linear)


def _head_width(text: Any) -> int:
    return _most(text, "head_dim") or text.hidden_size // _most(text, "num_attention_heads")


def _most(text: Any, name: str) -> int:
    """A size of attention, the largest where layers differ; 0 where the config does not say."""
    layers = getattr(text, "per_layer_config", None)
    found = [vars(c).get(name) for c in (layers or ())] or [getattr(text, name, None)]
    return max((int(n) for n in found if n is not None), default=0)


def _seeing(config: Any, size: int) -> int:
    """What a layer of the tower makes of the patches of one token: the three of its MLP, and attention's four."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return 0
    width: int = getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", None) or 0
    inner: int = getattr(vision, "intermediate_size", None) or 4 * width
    side: int = getattr(vision, "spatial_merge_size", None) or 2
    return side * side * size * (3 * inner + 4 * width)


def _shape(config: Any, dtype: torch.dtype, layers: int, student: Student | None) -> Any:
    """A model without storage, frozen and with adapters as the recipe has it."""
    family = family_of(config)
    model = skeleton(config, layers, dtype)
    if student is None:
        return model
    with torch.device("meta"):
        for name, parameter in model.base_model.named_parameters():
            parameter.requires_grad_(part_of(name, family) not in student.freeze)
        if student.lora is not None:
            add_adapters(model, family, rank=student.lora.rank, alpha=student.lora.alpha, seed=0)
    return model


def _for_training(config: Any, dtype: torch.dtype, student: Student) -> tuple[int, int]:
    """`kept` and `working` of a student."""
    text = config.get_text_config()
    one, two = (_Probe(_shape(config, dtype, n, student)) for n in (1, 2))
    base, layer = 2 * one.kept - two.kept, two.kept - one.kept
    beside = one.backward - one.kept
    if student.activation_checkpointing == "selective":
        one, two = (_Probe(_shape(config, dtype, n, student), student) for n in (1, 2))
        attended = _most(text, "num_attention_heads") * (_head_width(text) * dtype.itemsize + 4)
        return base + text.num_hidden_layers * (two.alive - one.alive + attended), one.backward - one.alive
    if student.activation_checkpointing:
        return base + text.num_hidden_layers * text.hidden_size * dtype.itemsize, layer + beside
    return base + text.num_hidden_layers * layer, beside


def _passing(config: Any, dtype: torch.dtype) -> int:
    model = _shape(config, dtype, 1, None)
    with torch.no_grad(), AliveBytes([*model.parameters(), *model.buffers()]) as alive:
        before = alive.now
        run(model)
        most: int = alive.peak - before
    return most // PROBE_TOKENS


class _Probe:
    """One forward and backward pass over shapes, a token of which keeps and takes so many bytes; weights and their
    gradients are not counted. `alive` is what is left between the passes, with what checkpointing has put by."""

    def __init__(self, model: Any, selective: Student | None = None) -> None:
        model.train()
        if selective is not None:
            checkpoint_layers(model, "selective", selective.lora)
        weights = [*model.parameters(), *model.buffers()]
        shapes = {tuple(p.shape) for p in weights}
        self._weights = {t.untyped_storage()._cdata for t in weights}
        self._kept: dict[int, torch.UntypedStorage] = {}
        with AliveBytes(weights, apart=shapes | {s[::-1] for s in shapes}) as alive:
            before = alive.now
            with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda t: t):
                states = run(model)
            self.kept = sum(s.nbytes() for s in self._kept.values()) // PROBE_TOKENS
            self._kept.clear()
            self.alive = (alive.now - before) // PROBE_TOKENS
            alive.peak = alive.now
            states.backward(torch.empty_like(states))
        self.backward = (alive.peak - before) // PROBE_TOKENS

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._kept[storage._cdata] = storage
        return tensor
