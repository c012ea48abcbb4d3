"""Moments of AdamW in 8 bits, by bitsandbytes: numbers of a table of 256, and a float32 scale for each 256 of them
(arXiv 2110.02861). Weights are updated in float32 all the same.

What is small keeps its moments in float32, as the paper has it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST, MOST = 4096, 2**31 - 1
"""Numbers that a tensor must have, and that the kernel can count."""
BLOCK = 256
"""Moments that share a scale."""
SCALES = ("exp_avg_scale", "exp_avg_sq_scale")
"""What the state of a tensor with such moments has besides."""


def takes(numel: int) -> bool:
    """Whether a tensor of so many numbers has moments in 8 bits."""
    return LEAST <= numel <= MOST


def scales_of(numel: int) -> int:
    """How many scales the moments of such a tensor have, each of the two."""
    return -(-numel // BLOCK)


def stored_bytes(numel: int) -> int:
    """Bytes of the two moments of a tensor of so many numbers."""
    return 2 * (numel + 4 * scales_of(numel)) if takes(numel) else 8 * numel


def begin(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The moments of a tensor before its first update: 0 with a scale of 0. The step is counted on the host."""
    codes = (torch.zeros_like(weight, dtype=torch.uint8, memory_format=torch.contiguous_format) for _ in range(2))
    scales = (torch.zeros(scales_of(weight.numel()), device=weight.device) for _ in range(2))
    return dict(zip(("exp_avg", "exp_avg_sq", *SCALES), (*codes, *scales), strict=True), step=torch.zeros(()))


def adamw(weight: torch.Tensor, grad: torch.Tensor, state: dict[str, torch.Tensor], group: Mapping[str, Any]) -> None:
    """One step of AdamW on a float32 tensor, in place.

    Args:
        weight: contiguous.
        grad: float32, of the same shape.
        state: what `begin` gave.
        group: lr, betas, eps and weight_decay.
    """
    from bitsandbytes.functional import optimizer_update_8bit_blockwise

    state["step"] = step = state["step"].cpu() + 1  # of a state that was read: it lies with the weights
    first, second = _tables(weight.device)
    optimizer_update_8bit_blockwise(
        "adam",
        grad.contiguous(),
        weight,
        state["exp_avg"],
        state["exp_avg_sq"],
        group["betas"][0],
        group["betas"][1],
        0.0,  # of another rule, as the next
        0.0,
        group["eps"],
        int(step),
        group["lr"],
        first,
        second,
        state["exp_avg_scale"],
        state["exp_avg_sq_scale"],
        weight_decay=group["weight_decay"],
    )


@functools.cache
def _tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The 256 numbers of a first moment, and of a second, which is not negative."""
    import bitsandbytes.functional as library

    made: Any = library.create_dynamic_map
    return made(signed=True).to(device), made(signed=False).to(device)
