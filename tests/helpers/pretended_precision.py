"""Float32 where it matters, on the pretended device."""

from __future__ import annotations

from typing import Any

import torch

from pretended_cuda.device import counting
from vold.model.lm_head.chunked_logits import Projection
from vold.model.packing import Packed, packed_attention


def logits() -> float:
    """By how much logits of a bfloat16 model differ from their sums in float64."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    there = Projection(hidden.cuda(), weight.cuda(), None, torch.zeros(0, dtype=torch.int64).cuda(), 1.0, 8)
    return float((there.logits(slice(0, 5)).cpu() - hidden.double() @ weight.double().t()).abs().max())


def attention(kind: str) -> dict[str, Any]:
    """Kernels of two packed rows whose four heads share two of keys, and the largest difference from float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 7, 8).to(getattr(torch, kind)) for heads in (4, 2, 2))
    places = torch.arange(7)
    packed = Packed(places, (3, 4), ((0,), (1,)), places)
    module = torch.nn.Module()
    with counting() as counts:
        out, _ = packed_attention(module, query.cuda(), key.cuda(), value.cuda(), None, packed)
    exact, _ = packed_attention(module, query.double(), key.double(), value.double(), None, packed)
    return {"kernels": sorted(counts.attention), "off": float((out.cpu() - exact).abs().max())}
