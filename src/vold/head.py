"""What training reads off a vocabulary: log-probs, entropy, likeliest tokens and divergences, chunk by chunk.

No [tokens, vocabulary] tensor of a whole batch exists. The logits of one chunk of tokens are made, read and dropped;
the backward pass makes them again (those of the last chunk it still has) and turns them, in place, into the gradient of
the states and of the head. That gradient is summed over chunks in float32 at least.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_ELEMENTS = 2**25
"""Logits that exist at the same time, 128 MiB in float32: 220 tokens at 151,936 ids."""
CHUNK_TOKENS = 1024
"""Tokens at the same time where the head is not a plain linear layer."""
NEVER = -1e30
"""The logit of a banned id: its probability is an exact 0, and 0 times it is not NaN."""


def head_logits(hidden: torch.Tensor, head: nn.Module, banned: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits [tokens, vocabulary] in float32, divided by the temperature, with `banned` ids at minus infinity."""
    logits: torch.Tensor = head(hidden).float()
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    return logits.index_fill(-1, banned, float("-inf")) if len(banned) else logits


def token_logprobs(
    hidden: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    *,
    banned: torch.Tensor,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-prob of each target, and the entropy and most likely token of each distribution.

    The log-prob carries the gradient; entropy and favourite are detached. A head that is more than a linear layer (an
    adapter, a sharded one) is called as the module it is.

    Args:
        hidden: [tokens, width], the states that predict `targets`.
        head: the output embedding.
        targets: [tokens] int64.
        banned: ids that can never be sampled (vision placeholders, padded rows); their log-prob is -inf.
        temperature: divides the logits; the same on student and teacher.
        chunk_tokens: how many tokens' logits exist at once; by default as many as fit `CHUNK_ELEMENTS`.

    Returns:
        ([tokens] float32 nats, [tokens] float32 nats, [tokens] int64).
    """
    if not len(targets):
        empty = hidden.sum() * 0.0 + hidden.new_zeros(0, dtype=torch.float32)
        return empty, empty.detach(), torch.zeros(0, dtype=torch.int64, device=hidden.device)
    if is_linear(head):
        temperature = temperature or 1.0  # 0 is greedy: the distribution is reported at 1
        chunk_tokens = chunk_tokens or max(1, CHUNK_ELEMENTS // head.weight.shape[0])
        apply = cast("Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]", _TokenLogprobs.apply)
        return apply(hidden, head.weight, head.bias, targets, banned, temperature, chunk_tokens)

    def chunk(h: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = head_logits(h, head, banned, temperature)
        normaliser = logits.logsumexp(-1)
        logp = logits.gather(-1, t[:, None])[:, 0] - normaliser
        with torch.no_grad():
            probs = (logits - normaliser[:, None]).exp()
            entropy = normaliser - (probs * logits.masked_fill(probs == 0, 0.0)).sum(-1)
            favourite = logits.argmax(-1)
        return logp, entropy, favourite

    size = chunk_tokens or CHUNK_TOKENS
    parts = [
        checkpoint(chunk, h, t, use_reentrant=False) if torch.is_grad_enabled() else chunk(h, t)
        for h, t in zip(hidden.split(size), targets.split(size), strict=True)
    ]
    logps, entropies, favourites = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies), torch.cat(favourites)


def read_logits(
    read: Callable[..., torch.Tensor],
    hidden: torch.Tensor,
    head: nn.Linear,
    *others: torch.Tensor,
    banned: torch.Tensor,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> torch.Tensor:
    """`read(logits, *others)` of every token, for any function of the logits that has a gradient of its own.

    Candidates' log-probs, a top-k or a full-vocabulary divergence are such functions. `read` runs once without a
    gradient, and once more in the backward pass on logits made again; what it keeps lives for one chunk.

    Args:
        read: from logits [chunk, vocabulary], in float32 at least, `NEVER` on banned ids, and the same tokens of
            `others`, to [chunk, ...]. The gradient goes to the logits alone.
        hidden: [tokens, width], at least one token.
        head: the output embedding, see `is_linear`.
        others: tensors of [tokens, ...] that `read` is handed beside the logits, such as a teacher's states.
        banned: ids that can never be sampled.
        temperature: divides the logits.
        chunk_tokens: as in `token_logprobs`.

    Returns:
        [tokens, ...].
    """
    size = chunk_tokens or max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    apply = cast("Callable[..., torch.Tensor]", _ReadLogits.apply)
    return apply(read, hidden, head.weight, head.bias, banned, temperature or 1.0, size, *others)


def is_linear(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a head is a linear layer and nothing more, whose weight can be used without calling it."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter and not head._forward_hooks


def _kernels(logits: torch.Tensor) -> Any:
    """`vold.head_kernels` where it can read these logits, None elsewhere.

    Triton's interpreter takes tensors on a CPU too, which is how the kernels are tested without a GPU.
    """
    here = logits.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    if not here or logits.dtype != torch.float32:
        return None
    try:
        return importlib.import_module("vold.head_kernels")
    except ImportError:
        return None


class _Projection:
    """Logits of one chunk in a buffer that is used again, and the two products that undo them."""

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
        return [slice(i, min(i + self.size, len(self.hidden))) for i in range(0, len(self.hidden), self.size)]

    def logits(self, part: slice) -> torch.Tensor:
        hidden = self.hidden[part]
        z = self.buffer[: len(hidden)]
        if z.dtype == hidden.dtype:
            torch.mm(hidden, self.weight.t(), out=z)
        else:
            z.copy_(hidden @ self.weight.t())
        if self.bias is not None:
            z += self.bias
        if self.temperature != 1.0:
            z /= self.temperature
        return z.index_fill_(-1, self.banned, NEVER) if len(self.banned) else z

    def gradients(self, wanted: tuple[bool, bool, bool]) -> _Gradients:
        return _Gradients(self, wanted)


class _Gradients:
    """Sums over chunks what gradients of the logits mean for states, weight and bias."""

    def __init__(self, projection: _Projection, wanted: tuple[bool, bool, bool]) -> None:
        p = self.of = projection
        self.hidden = torch.empty_like(p.hidden) if wanted[0] else None
        self.weight = torch.zeros_like(p.weight, dtype=p.dtype) if wanted[1] else None
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
            self.weight.addmm_(grad.t(), p.hidden[part].to(p.dtype))
        if self.bias is not None:
            self.bias += grad.sum(0)

    def cast(self) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """In the types autograd expects."""
        p = self.of
        return (
            self.hidden,
            None if self.weight is None else self.weight.to(p.weight.dtype),
            None if self.bias is None or p.bias is None else self.bias.to(p.bias.dtype),
        )


class _TokenLogprobs(torch.autograd.Function):
    """`token_logprobs` with its gradient by hand: d log p_y / d z_j = [j = y] - p_j."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        banned: torch.Tensor,
        temperature: float,
        chunk_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets, banned)
        ctx.settings = temperature, chunk_tokens
        projection = _Projection(hidden, weight, bias, banned, temperature, chunk_tokens)
        logp, entropy, norms = hidden.new_empty((3, len(hidden)), dtype=projection.dtype)
        favourite = torch.empty_like(targets)
        ctx.kernels = kernels = _kernels(projection.buffer)
        spare = torch.empty_like(projection.buffer) if kernels is None else None
        for part in projection.slices():
            if kernels is not None:
                p = projection.logits(part)
                logp[part], entropy[part], favourite[part], norms[part] = kernels.read(p, targets[part])
                continue
            assert spare is not None
            z, y = projection.logits(part), targets[part, None]
            top = z.argmax(-1, keepdim=True)
            p = torch.softmax(z, -1, out=spare[: len(z)])
            normaliser = z.gather(-1, top) - p.gather(-1, top).log()
            logp[part] = (z.gather(-1, y) - normaliser)[:, 0]
            entropy[part] = normaliser[:, 0] - z.mul_(p).sum(-1)
            favourite[part] = top[:, 0]
        # The backward pass begins with the last chunk, and a small batch has no other: its probabilities are kept, or
        # its logits where a kernel makes probabilities of them on the way.
        ctx.kept, ctx.norms = p, norms
        if len(banned):
            logp.masked_fill_(torch.isin(targets, banned), float("-inf"))
        entropy, logp = entropy.float(), logp.float()
        ctx.mark_non_differentiable(entropy, favourite)
        return logp, entropy, favourite

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, banned = ctx.saved_tensors
        projection = _Projection(hidden, weight, bias, banned, *ctx.settings)
        sums = projection.gradients(ctx.needs_input_grad[:3])
        upstream = grads[0].to(projection.dtype)
        p, ctx.kept = ctx.kept, None
        spare = None
        for part in reversed(projection.slices()):
            if ctx.kernels is not None:
                z = projection.logits(part) if p is None else p
                sums.add(part, ctx.kernels.turn_into_gradient(z, targets[part], ctx.norms[part], upstream[part]))
                p = None
                continue
            g = upstream[part, None]
            if p is None:
                spare = torch.empty_like(projection.buffer) if spare is None else spare
                p = torch.softmax(projection.logits(part), -1, out=spare[: len(g)])
            sums.add(part, p.mul_(-g).scatter_add_(-1, targets[part, None], g))
            p = None
        return *sums.cast(), None, None, None, None


class _ReadLogits(torch.autograd.Function):
    """`read_logits`: autograd inside a chunk, products by hand around it."""

    @staticmethod
    def forward(
        ctx: Any,
        read: Callable[..., torch.Tensor],
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        banned: torch.Tensor,
        temperature: float,
        chunk_tokens: int,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, bias, banned, *others)
        ctx.settings, ctx.read = (temperature, chunk_tokens), read
        projection = _Projection(hidden, weight, bias, banned, temperature, chunk_tokens)
        return torch.cat([read(projection.logits(s), *(o[s] for o in others)) for s in projection.slices()])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, banned, *others = ctx.saved_tensors
        projection = _Projection(hidden, weight, bias, banned, *ctx.settings)
        sums = projection.gradients(ctx.needs_input_grad[1:4])
        for part in projection.slices():
            z = projection.logits(part).detach()
            with torch.enable_grad():
                z.requires_grad_()
                value = ctx.read(z, *(o[part] for o in others))
                (grad,) = torch.autograd.grad(value, z, grads[0][part])
            sums.add(part, grad)
        return None, *sums.cast(), None, None, None, *(None for _ in others)
