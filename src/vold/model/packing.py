"""Many rows in one, without padding, and a prompt that rows share only once.

A padded batch of R rows becomes one row: `[prompt A | response A1 | response A2 | prompt and response B | ...]`. All
that a transformer does token by token runs on that row. Attention runs row by row, each over its own prompt and
response, so a row sees nothing of the others; position ids are those of the padded batch. The states are the same up
to rounding, the work and the memory are those of the tokens that exist. On a GPU, in 16 bits, one call of a kernel
takes all rows (`vold.model.varlen`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vold.model import varlen
from vold.model.slots import Slots

if TYPE_CHECKING:
    from torch import nn

    from vold.model.batching import Sequences

ATTENTION = "vold_packed"
"""The name under which Transformers finds `packed_attention`."""
NO_MASK = torch.empty(1, 1, 1, 0)
"""What packed rows have for a mask. Of four dimensions Transformers takes one as it is; without any it looks at the
positions for sequences that are packed, and a GPU's host waits for that in every pass."""
SHORT = 256
"""Tokens of a row up to which a CPU's backward pass through attention is quicker in float32 than in 16 bits."""


@dataclass(frozen=True)
class Packed:
    """Where the tokens of a padded batch go in one packed row.

    Attributes:
        index: [packed] int64 on the host, flat places in the padded [rows, length] grid; `states` likewise.
        pieces: lengths of the prompts and responses that follow each other in the packed row.
        rows: for each row the pieces it is made of, in order: a shared prompt and a response, or both as one.
        states: [tokens] int64, the packed place of the state that predicts each selected token.
        slots: keeps the keys and values that `source` [tokens], places in the packed row, have.
        source: see `slots`.
        sequences: for a kernel that takes all rows at once; None for row by row.
    """

    index: torch.Tensor
    pieces: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    states: torch.Tensor
    slots: Slots | None = None
    source: torch.Tensor | None = None
    sequences: varlen.Sequences | None = None


def pack(batch: Sequences, device: torch.device) -> Packed:
    """Lay out a padded batch on the host, for a model on a device. Rows with equal `source` share one prompt; all else
    keeps its row order."""
    count, width = batch.input_ids.shape
    lengths = batch.attention_mask.sum(-1).tolist()
    prompts, source = batch.prompt_lengths, batch.source
    sharers: dict[int, list[int]] = {}
    for i in range(count):
        sharers.setdefault(source[i], []).append(i)
    spans: list[tuple[int, int]] = []  # flat start and length of each piece
    rows: list[tuple[int, ...]] = [()] * count
    for first, members in sharers.items():
        if len(members) == 1:
            rows[first] = (len(spans),)
            spans.append((first * width, lengths[first]))
            continue
        prompt = len(spans)
        spans.append((first * width, prompts[first]))
        for i in members:
            rows[i] = (prompt, len(spans)) if lengths[i] > prompts[i] else (prompt,)
            if lengths[i] > prompts[i]:
                spans.append((i * width + prompts[i], lengths[i] - prompts[i]))
    index = torch.cat([torch.arange(start, start + length) for start, length in spans])
    place = torch.full((count * width,), -1, dtype=torch.int64)
    place[index] = torch.arange(len(index))
    row, column = batch.select.nonzero().unbind(-1)
    shared = column < torch.tensor(prompts)[row]
    states = place[torch.where(shared, torch.tensor(source)[row], row) * width + column]
    packed = Packed(index, tuple(length for _, length in spans), tuple(rows), states)
    return replace(packed, sequences=_sequences(packed, device)) if varlen.has_kernel(device) else packed


def _sequences(packed: Packed, device: torch.device) -> varlen.Sequences:
    """Every piece asks once: a prompt or a whole row among itself, and a response among the shared prompt's keys, which
    are laid before its own."""
    before = {row[-1]: row[:-1] for row in packed.rows}
    seen = [(*before.get(i, ()), i) for i in range(len(packed.pieces))]
    places = torch.arange(len(packed.index)).split(packed.pieces)
    shared = any(len(pieces) > 1 for pieces in seen)
    source = torch.cat([places[i] for pieces in seen for i in pieces]) if shared else None
    keys = [sum(packed.pieces[i] for i in pieces) for pieces in seen]
    return varlen.side_by_side(packed.pieces, keys, source, device)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: Packed | Slots | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' SDPA attention, row by row where the batch is packed, or of one token of each row of `Slots`.

    In one call of all rows a shared prompt attends once. Row by row a row that shares its prompt attends as a whole,
    prompt included: plain causal attention has the fastest kernels, and a prompt's own attention is little work beside
    the layers it is spared.

    Args:
        module: the attention layer; one that is not causal (a vision tower's) never sees packed rows.
        query: [1, heads, packed, width]; `key` and `value` likewise, perhaps with fewer heads.
        key: see `query`.
        value: see `query`.
        attention_mask: not read where `packed` is given.
        packed: the layout, or the rows' keys and values; None for a padded batch.
        kwargs: what Transformers hands to every attention function.

    Returns:
        [1, packed, heads, width], and no attention weights.
    """
    if packed is None or not getattr(module, "is_causal", True):
        if attention_mask is None:  # elsewhere they are repeated there
            key, value = _own_keys(query, key, value)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if isinstance(packed, Slots):
        return packed.attend(module, query, key, value, **kwargs), None
    if packed.slots is not None:
        index: Any = module.layer_idx
        packed.slots.write(index, *(t[0].transpose(0, 1)[packed.source] for t in (key, value)))
    window: int | None = kwargs.get("sliding_window")
    if packed.sequences is not None and varlen.takes(query) and not kwargs.get("dropout"):
        near = (-1 if window is None else window - 1, 0)
        return varlen.attend(query, key, value, packed.sequences, scale=kwargs.get("scaling"), window=near), None
    return _row_by_row(query, key, value, packed, window, **kwargs), None


def _row_by_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed, window: int | None, **kwargs: Any
) -> torch.Tensor:
    """`packed_attention` in a call for each row."""
    precision = query.dtype
    if _is_quicker_in_float32(query, packed):
        query, key, value = query.float(), key.float(), value.float()
    key, value = _own_keys(query, key, value, masked=window is not None)
    parts = [t.split(packed.pieces, 2) for t in (query, key, value)]
    out: list[torch.Tensor | None] = [None] * len(packed.pieces)
    for pieces in packed.rows:
        q, k, v = (torch.cat([part[i] for i in pieces], 2) if len(pieces) > 1 else part[pieces[0]] for part in parts)
        length = q.shape[2]
        near = _window_mask(length, window, q.device) if window is not None and length > window else None
        attended = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=near,
            dropout_p=kwargs.get("dropout", 0.0),
            scale=kwargs.get("scaling"),
            is_causal=near is None,
            enable_gqa=q.shape[1] != k.shape[1],
        ).transpose(1, 2)
        for i, piece in zip(pieces, attended.split([packed.pieces[i] for i in pieces], 1), strict=True):
            out[i] = piece if out[i] is None else out[i]
    return torch.cat([piece for piece in out if piece is not None], 1).to(precision)


def _is_quicker_in_float32(query: torch.Tensor, packed: Packed) -> bool:
    """Whether rows of 16 bits are all `SHORT`, on a CPU, and a backward pass follows."""
    if query.device.type != "cpu" or query.dtype.itemsize != 2 or not query.requires_grad:
        return False
    return max(sum(packed.pieces[i] for i in row) for row in packed.rows) <= SHORT


def _own_keys(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, masked: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of each head, where a GPU has no fused kernel for heads that share them: in float32 and with a
    mask. The plain one keeps all scores for the backward pass."""
    sharers = query.shape[1] // key.shape[1]
    if not query.is_cuda or sharers == 1 or (query.dtype != torch.float32 and not masked):
        return key, value
    return key.repeat_interleave(sharers, 1), value.repeat_interleave(sharers, 1)


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """[length, length] bool: a token sees itself and the `window` - 1 tokens before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def _mask(**kwargs: Any) -> torch.Tensor | None:
    """A padded batch needs a mask, and comes with one; a packed row needs none of [packed, packed]."""
    return None if kwargs.get("attention_mask") is None else sdpa_mask(**kwargs)


Attention = list[tuple[Any, Any]]
"""Configs of a model's parts, each with the attention that it names."""


def attention_of(model: Any) -> Attention:
    """The attention of every part of a Transformers model."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    found: dict[int, Any] = {id(c): c for c in configs if hasattr(c, "_attn_implementation")}
    return [(config, config._attn_implementation_internal) for config in found.values()]


def set_attention(attention: Attention) -> None:
    """Put back what `attention_of` found."""
    for config, name in attention:
        config._attn_implementation_internal = name


def enable_packing(model: Any) -> None:
    """Let a Transformers model run packed rows."""
    AttentionInterface.register(ATTENTION, torch.compiler.disable(packed_attention))
    AttentionMaskInterface.register(ATTENTION, _mask)
    model.set_attn_implementation(ATTENTION)
