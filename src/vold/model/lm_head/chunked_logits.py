"""Logits of a linear head, made chunk by chunk in a buffer that is used again, and the two products that undo them."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn

CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
"""Logits that exist at the same time, by the device's type: 128 MiB in float32 on a CPU, which is 220 tokens at 151,936
ids; 1 GiB on a GPU, where every chunk reads and writes the float32 sum of the weight's gradient in the time of
hundreds of tokens' products."""
NEVER = -1e30
"""The logit of a banned id: its probability is an exact 0, and 0 times it is not NaN."""


def head_logits(hidden: torch.Tensor, head: nn.Module, banned: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits [tokens, vocabulary] in float32, divided by the temperature, with `banned` ids at minus infinity."""
    logits: torch.Tensor = head(hidden).float()
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    return logits.index_fill(-1, banned, float("-inf")) if len(banned) else logits


def is_linear(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a head is a linear layer and nothing more, whose weight can be used without calling it."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter and not head._forward_hooks


def chunk_elements(device: str) -> int:
    """`CHUNK_ELEMENTS` of a device's type; a GPU's where the type is not there, such as `auto`."""
    return CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])


class Projection:
    """The logits of one chunk of tokens, in a buffer that the next chunk uses again.

    Args:
        hidden: [tokens, width] the states.
        weight: [vocabulary, width] of the head.
        bias: [vocabulary] or None.
        banned: ids that can never be sampled.
        temperature: divides the logits, not 0.
        chunk_tokens: tokens of a chunk.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        banned: torch.Tensor,
        temperature: float,
        chunk_tokens: int,
    ) -> None:
        self.hidden, self.weight, self.bias = hidden, weight, bias
        self.banned, self.temperature = banned, temperature
        self.size = min(len(hidden), chunk_tokens)
        self.dtype = torch.promote_types(hidden.dtype, torch.float32)
        self.buffer = hidden.new_empty((self.size, weight.shape[0]), dtype=self.dtype)

    def slices(self) -> list[slice]:
        """The chunks."""
        return [slice(i, min(i + self.size, len(self.hidden))) for i in range(0, len(self.hidden), self.size)]

    def logits(self, part: slice) -> torch.Tensor:
        """[chunk, vocabulary] in float32 at least, `NEVER` on banned ids; gone when the next ones are made."""
        hidden = self.hidden[part]
        z = self.buffer[: len(hidden)]
        if z.dtype == hidden.dtype:
            torch.mm(hidden, self.weight.t(), out=z)
        elif z.is_cuda:  # added up and kept in float32: neither rounded nor written twice
            torch.mm(hidden, self.weight.t(), out_dtype=z.dtype, out=z)
        else:
            z.copy_(hidden @ self.weight.t())
        if self.bias is not None:
            z += self.bias
        if self.temperature != 1.0:
            z /= self.temperature
        return z.index_fill_(-1, self.banned, NEVER) if len(self.banned) else z


class Gradients:
    """Sums over chunks what gradients of the logits mean for states, weight and bias."""

    def __init__(self, projection: Projection, wanted: tuple[bool, bool, bool]) -> None:
        p = self.of = projection
        self.hidden = torch.empty_like(p.hidden) if wanted[0] else None
        self.weight = torch.empty_like(p.weight, dtype=p.dtype) if wanted[1] else None
        self.empty = True
        self.bias = torch.zeros_like(p.bias, dtype=p.dtype) if wanted[2] and p.bias is not None else None

    def add(self, part: slice, grad: torch.Tensor) -> None:
        """`grad` [chunk, vocabulary] is overwritten."""
        p = self.of
        if len(p.banned):
            grad.index_fill_(-1, p.banned, 0.0)
        if p.temperature != 1.0:
            grad /= p.temperature
        if self.hidden is not None:
            self.hidden[part] = grad.to(p.weight.dtype) @ p.weight
        if self.weight is not None:
            _add_product(self.weight, grad.t(), p.hidden[part], first=self.empty)
            self.empty = False
        if self.bias is not None:
            self.bias += grad.sum(0)

    def cast(self, factor: float = 1.0) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """`factor` times the sums, in the types autograd expects. To be called once."""
        p = self.of
        if factor != 1.0:
            for tensor in (self.hidden, self.weight, self.bias):
                if tensor is not None:
                    tensor *= factor
        return (
            self.hidden,
            None if self.weight is None else self.weight.to(p.weight.dtype),
            None if self.bias is None or p.bias is None else self.bias.to(p.bias.dtype),
        )


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, first: bool) -> None:
    """`total` += a @ b, or = a @ b for the `first` one, summed in the precision of `total`.

    On a GPU factors below float32 are multiplied as they are, which is several times faster than in float32; `a` is
    rounded to the precision of `b` for it, as in the plain backward pass of a linear layer.
    """
    if b.dtype == total.dtype or total.device.type == "cpu":
        total.addmm_(a, b.to(total.dtype), beta=0 if first else 1)
    elif first:
        torch.mm(a.to(b.dtype), b, out_dtype=total.dtype, out=total)
    else:
        torch.addmm(total, a.to(b.dtype), b, out_dtype=total.dtype, out=total)
