"""Many sequences in one call of a fused attention kernel, each among its own keys: PyTorch's `varlen_attn`.

On a GPU, in 16 bits. Elsewhere attention goes sequence by sequence (`vold.model.packing`), which is what this is held
against.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.attention.varlen import varlen_attn

if TYPE_CHECKING:
    from collections.abc import Sequence

HALF = (torch.float16, torch.bfloat16)
WIDEST, STEP = 256, 8
"""The largest width of a head that the kernel takes, and what a width must be a multiple of."""
OPERATOR = torch.ops.torch_attn._varlen_attn.default
"""What one call is to PyTorch's dispatcher."""
AMPERE = (8, 0)
"""The least compute capability that it runs on."""
ASKED = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether this PyTorch wants to be asked for heads that share keys; before 2.13 its kernel takes them as they come."""


@dataclass(frozen=True)
class Sequences:
    """Where sequences lie that attend side by side.

    Attributes:
        queries: [sequences + 1] int32 on the device, where the queries of each begin, and the end.
        keys: the same of their keys. A sequence's last query stands beside its last key.
        longest_queries: of one sequence; `longest_keys` likewise.
        longest_keys: see `longest_queries`.
        source: [keys] int64 on the device, where each key is taken from; None where keys lie as queries do.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    longest_queries: int
    longest_keys: int
    source: torch.Tensor | None = None


def side_by_side(
    queries: Sequence[int], keys: Sequence[int], source: torch.Tensor | None, device: torch.device
) -> Sequences:
    """Sequences of so many queries and keys each."""
    begins = (torch.tensor([0, *lengths]).cumsum(0).to(torch.int32) for lengths in (queries, keys))
    there = [t.to(device, non_blocking=True) for t in begins]
    source = None if source is None else source.to(device, non_blocking=True)
    return Sequences(there[0], there[1], max(queries), max(keys), source)


def has_kernel(device: torch.device) -> bool:
    """Whether a device has the kernel: an NVIDIA GPU for which PyTorch was built with it."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= AMPERE
    )


def takes(query: torch.Tensor) -> bool:
    """Whether the kernel takes queries of this type and width, the last dimension."""
    return query.dtype in HALF and query.shape[-1] <= WIDEST and query.shape[-1] % STEP == 0


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    of: Sequences,
    *,
    scale: float | None,
    window: tuple[int, int],
) -> torch.Tensor:
    """One call for all sequences.

    Args:
        query: [1, heads, queries, width]; `key` and `value` likewise, perhaps with fewer heads.
        key: see `query`.
        value: see `query`.
        of: where each sequence lies.
        scale: of the scores; None for 1 / sqrt(width).
        window: how many tokens before and after its own a query sees; -1 for all.

    Returns:
        [1, queries, heads, width].
    """
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    if of.source is not None:
        k, v = k.index_select(0, of.source), v.index_select(0, of.source)
    call = partial(varlen_attn, enable_gqa=True) if ASKED and q.shape[1] != k.shape[1] else varlen_attn
    ends = of.queries, of.keys, of.longest_queries, of.longest_keys
    out = call(q, k, v, *ends, scale=scale, window_size=window)
    assert isinstance(out, torch.Tensor)
    return out[None]
