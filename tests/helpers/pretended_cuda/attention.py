"""Which kernel CUDA would choose for scaled dot product attention, and the numbers of the host's.

PyTorch asks the device's own code for the choice, which a build without CUDA lacks. The rules here are those of its
`sdp_utils.cpp` for a card of compute capability 8.0 or more, as far as shapes, types and masks decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = torch.nn.functional.scaled_dot_product_attention
HALF = (torch.float16, torch.bfloat16)


def kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, *, causal: bool
) -> str:
    """`flash`, `efficient` or `MATH`, which makes [heads, queries, keys] in memory."""
    if query.dim() != 4 or any(t.stride(-1) != 1 for t in (query, key, value)):
        return "MATH"
    wide, square = query.shape[-1], query.shape[2] == key.shape[2]
    if query.dtype in HALF and mask is None and wide == value.shape[-1] <= 256 and (square or not causal):
        return "flash"  # shares keys among heads, and fills up a width that is no multiple of 8
    aligned = wide % (8 if query.dtype in HALF else 4) == 0 and value.shape[-1] % 4 == 0
    alike = query.shape[1] == key.shape[1] == value.shape[1]
    known = query.dtype in (*HALF, torch.float32) and (mask is None or not mask.requires_grad)
    return "efficient" if aligned and alike and known else "MATH"


def attention(seen: Callable[[str], None]) -> Callable[..., torch.Tensor]:
    """`torch.nn.functional.scaled_dot_product_attention` that tells `seen` of the kernel of every call on the card."""

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        if not query.is_cuda:
            return PLAIN(query, key, value, attn_mask, dropout_p, is_causal, **more)
        assert more.get("enable_gqa") or query.shape[1] == key.shape[1], "keys are shared with enable_gqa alone"
        chosen = kernel(query, key, value, attn_mask, causal=is_causal)
        kind = [" masked"] * (attn_mask is not None) + [" grouped"] * (query.shape[1] != key.shape[1])
        seen(f"{chosen} {str(query.dtype).removeprefix('torch.')}{''.join(kind)}")
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            zeros = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = zeros.masked_fill_(attn_mask.logical_not(), float("-inf"))
        # The host's fused kernel has a gradient of its own, so it can be asked for by name.
        out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=more.get("scale")
        )[0]
        return out

    return attend
