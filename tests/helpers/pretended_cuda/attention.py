"""Which kernel CUDA would choose for scaled dot product attention, and the numbers of the host's; the kernel of many
sequences side by side, which the host lacks.

PyTorch asks the device's own code for the choice, which a build without CUDA lacks. The rules here are those of its
`sdp_utils.cpp` for a card of compute capability 8.0 or more, as far as shapes, types and masks decide.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = torch.nn.functional.scaled_dot_product_attention
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The host's fused kernel: what it attends to, and the logarithm of each query's sum."""
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


class Sequences:
    """`aten._flash_attention_forward` and its backward pass for sequences side by side, in float32.

    The rules are those of FlashAttention 2: 16 bits, a width that is a multiple of 8 and at most 256, places in int32
    on the card, heads that divide, and no sequence longer than was told; the last query stands beside the last key.
    """

    def __init__(self, seen: Callable[[str], None]) -> None:
        self.seen = seen

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any, **more: Any) -> tuple[Any, ...]:
        parts = self._parts(q, k, v, *rest, **more)
        shared = " grouped" * (q.shape[1] != k.shape[1])
        self.seen(f"varlen {str(q.dtype).removeprefix('torch.')}{shared}")
        out, norms = torch.empty_like(q), q.new_empty((q.shape[1], len(q)), dtype=torch.float32)
        for mine, theirs, mask, scale in parts:
            three = (q[mine].float().transpose(0, 1), *(self._heads(t[theirs], q) for t in (k, v)))
            found, norm = FUSED(*(t[None] for t in three), attn_mask=mask, scale=scale)
            out[mine], norms[:, mine] = found[0].transpose(0, 1).to(q.dtype), norm[0]
        return out, norms, torch.zeros(2, dtype=torch.int64), torch.zeros(0), torch.zeros(0)

    def backward(self, upstream: torch.Tensor, *args: Any, **more: Any) -> tuple[torch.Tensor, ...]:
        q, k, v, _, norms, *rest = args
        made = [torch.zeros_like(t, dtype=torch.float32) for t in (q, k, v)]
        for mine, theirs, mask, scale in self._parts(q, k, v, *rest, **more):
            probability = (self._scores(q[mine], k[theirs], mask, scale) - norms[:, mine, None]).exp()
            above = upstream[mine].float().transpose(0, 1)
            values, keys = (self._heads(t[theirs], q) for t in (v, k))
            from_scores = above @ values.transpose(1, 2)
            steep = probability * (from_scores - (from_scores * probability).sum(-1, keepdim=True)) * scale
            made[0][mine] += (steep @ keys).transpose(0, 1)
            for total, whole in ((made[1], steep.transpose(1, 2) @ q[mine].float().transpose(0, 1)),
                                 (made[2], probability.transpose(1, 2) @ above)):  # fmt: skip
                total[theirs] += whole.unflatten(0, (k.shape[1], -1)).sum(1).transpose(0, 1)
        return tuple(g.to(t.dtype) for g, t in zip(made, (q, k, v), strict=True))

    @staticmethod
    def _heads(t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return t.float().repeat_interleave(like.shape[1] // t.shape[1], 1).transpose(0, 1)

    def _scores(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
        scores = q.float().transpose(0, 1) @ self._heads(k, q).transpose(1, 2) * scale
        return scores if mask is None else scores + mask

    def _parts(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any, **more: Any
    ) -> Iterator[tuple[slice, slice, torch.Tensor | None, float]]:
        begins, ends, longest_q, longest_k, dropout, causal = rest[:6]
        assert all(t.is_cuda and t.dim() == 3 and t.stride(-1) == 1 for t in (q, k, v)), "sequences side by side"
        assert q.dtype == k.dtype == v.dtype and q.dtype in HALF, "FlashAttention only support fp16 and bf16 data type"
        assert q.shape[-1] % 8 == 0 and q.shape[-1] <= 256, "head_size should be a multiple of 8 and at most 256"
        assert q.shape[1] % k.shape[1] == 0 and dropout == 0.0
        assert all(t.is_cuda and t.dtype == torch.int32 and t.is_contiguous() for t in (begins, ends))
        with _disable_current_modes():
            mine, theirs = begins.cpu().tolist(), ends.cpu().tolist()
        assert (mine[-1], theirs[-1]) == (len(q), len(k)) and mine[0] == theirs[0] == 0
        before, after = (-1 if w is None else w for w in (more.get("window_size_left"), more.get("window_size_right")))
        for (a, b), (c, d) in zip(pairwise(mine), pairwise(theirs), strict=True):
            assert 0 < b - a <= longest_q and 0 < d - c <= longest_k, "a sequence is longer than was told"
            scale = more.get("scale") or q.shape[-1] ** -0.5
            if not causal and before < 0 and after < 0:
                yield slice(a, b), slice(c, d), None, scale
                continue
            ahead = torch.arange(d - c)[None] - torch.arange(b - a)[:, None] - (d - c - (b - a))
            furthest = 0 if causal else d if after < 0 else after
            hidden = (ahead > furthest) | (ahead < -(before if before >= 0 else d))
            mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
            yield slice(a, b), slice(c, d), mask.to(q.device), scale


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
        out: torch.Tensor = FUSED(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=more.get("scale")
        )[0]
        return out

    return attend
