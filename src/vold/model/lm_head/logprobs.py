"""What training reads off a vocabulary, in one pass: log-probs, entropy, likeliest tokens, candidates, a divergence.

No [tokens, vocabulary] tensor of a whole batch exists. The logits of one chunk of tokens are made, read and dropped.
Where the caller can say what loss it will make of a token (`loss_of`), the gradient of the states and of the head is
added up in the same pass, and the backward pass has nothing left to do; elsewhere it makes the logits again. Gradients
are summed over chunks in float32 at least.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch.utils.checkpoint import checkpoint

from vold.model.lm_head.chunked_logits import Gradients, chunk_elements, head_logits, is_linear
from vold.model.lm_head.fused import HeadOutput, HeadPass, Query, places_of
from vold.model.lm_head.teacher_logits import ABSENT, top_logprobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from vold.model.lm_head.fused import LossOf

CHUNK_TOKENS = 1024
"""Tokens at the same time where the head is not a plain linear layer."""
SAME = 1e-5
"""By how much of its largest entry an upstream gradient may differ from the one foreseen: rounding, and no more."""


def read_head(hidden: torch.Tensor, head: nn.Module, query: Query) -> HeadOutput:
    """Read the distribution of every token once.

    A head that is more than a linear layer (an adapter, a sharded one) is called as the module it is; that takes the
    plain way, of which this is the fast form.

    Args:
        hidden: [tokens, width], the states that predict the targets.
        head: the output embedding.
        query: what is wanted.

    Raises:
        ConfigError: `top_k` is beyond what the model can emit.
    """
    if not len(query.targets):
        return _of_nothing(hidden, query)
    chunk_tokens = query.chunk_tokens
    if not chunk_tokens:
        room = chunk_elements(hidden.device.type)
        chunk_tokens = max(1, room // head.weight.shape[0]) if is_linear(head) else CHUNK_TOKENS
    loss_of = query.loss_of if torch.is_grad_enabled() else None
    query = replace(query, temperature=query.temperature or 1.0, chunk_tokens=chunk_tokens, loss_of=loss_of)
    if not is_linear(head):
        return _read_plainly(query, hidden, head)
    apply = cast("Callable[..., tuple[Any, ...]]", _Read.apply)
    return HeadOutput(*apply(query, hidden, head.weight, head.bias))


def _of_nothing(hidden: torch.Tensor, query: Query) -> HeadOutput:
    """No tokens, with a gradient of 0 for the states."""
    empty = hidden.sum() * 0.0 + hidden.new_zeros(0, dtype=torch.float32)
    none = torch.zeros(0, dtype=torch.int64, device=hidden.device)
    k = query.top_k
    return HeadOutput(
        empty, empty.detach(), none,
        None if query.candidates is None else empty[:, None].expand(0, query.candidates.shape[1]),
        None if query.against is None else empty,
        none[:, None].expand(0, k) if k else None,
        empty.detach()[:, None].expand(0, k) if k else None,
    )  # fmt: skip


def token_logprobs(
    hidden: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    *,
    banned: torch.Tensor,
    temperature: float = 1.0,
    chunk_tokens: int = 0,
    loss_of: LossOf | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-prob, entropy and most likely token alone: the first three of `read_head`, without a `Query`."""
    query = Query(targets, banned, temperature=temperature, chunk_tokens=chunk_tokens, loss_of=loss_of)
    output = read_head(hidden, head, query)
    return output.logp, output.entropy, output.argmax


def _read_plainly(query: Query, hidden: torch.Tensor, head: nn.Module) -> HeadOutput:
    """Any head, with PyTorch's own gradients, a checkpointed chunk at a time."""
    places = places_of(query)

    def chunk(states: torch.Tensor, part: slice) -> tuple[torch.Tensor | None, ...]:
        logits = head_logits(states, head, query.banned, query.temperature)
        whole = logits.log_softmax(-1)
        logp = whole.gather(-1, query.targets[part, None])[:, 0]
        candidates = divergence = top_ids = top_logp = None
        if query.candidates is not None:
            ids = query.candidates[part]
            inside = (ids >= 0) & (ids < whole.shape[-1])
            found = whole.gather(-1, ids.where(inside, 0))
            candidates = found.masked_fill(~inside | (found < ABSENT), ABSENT)
        if query.against is not None:
            keep = query.against.shared(logits.shape[-1], query.banned).nonzero()[:, 0]
            used = query.against.used[part].to(hidden.device)
            theirs = query.against.teacher.logits(places(part))[:, keep]
            values = query.against.divergence(logits[used][:, keep], theirs)
            divergence = torch.zeros_like(logp).masked_scatter(used, values)
        with torch.set_grad_enabled(torch.is_grad_enabled() and query.learn_entropy):
            entropy = -(whole.exp() * whole.masked_fill(whole.isneginf(), 0.0)).sum(-1)
        with torch.no_grad():
            argmax = logits.argmax(-1)
            if query.top_k:
                top_ids, top_logp = top_logprobs(whole, query.top_k)
        return logp, entropy, argmax, candidates, divergence, top_ids, top_logp

    size = query.chunk_tokens
    parts = [slice(i, min(i + size, len(hidden))) for i in range(0, len(hidden), size)]
    if torch.is_grad_enabled():
        found = [checkpoint(chunk, hidden[p], p, use_reentrant=False) for p in parts]
    else:
        found = [chunk(hidden[p], p) for p in parts]
    return _whole(HeadOutput(*values) for values in found)


def _whole(outputs: Iterable[HeadOutput]) -> HeadOutput:
    """Those of all chunks as one."""
    fields: list[Any] = [None if v[0] is None else torch.cat(v) for v in zip(*outputs, strict=True)]
    return HeadOutput(*fields)


class _Foreseen(NamedTuple):
    """Gradients that were added up in the forward pass, for these upstream gradients."""

    sums: Gradients
    upstream: list[torch.Tensor | None]


class _Read(torch.autograd.Function):
    """`read_head` for a linear head."""

    @staticmethod
    def forward(
        ctx: Any, query: Query, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        ctx.save_for_backward(hidden, weight, bias)
        ctx.set_materialize_grads(False)
        ctx.query, ctx.foreseen = query, None
        run = HeadPass(query, hidden, weight, bias)
        sums = None if query.loss_of is None else Gradients(run.of, ctx.needs_input_grad[1:])
        outputs, upstreams = list[HeadOutput](), list[tuple[torch.Tensor | None, ...]]()
        for part in run.of.slices():
            output = run.read(part)
            outputs.append(output)
            if sums is not None and query.loss_of is not None:
                upstreams.append(_upstream(query, part, output))
                sums.add(part, run.slope(part, *upstreams[-1]))
        out = _whole(outputs)
        if sums is not None:
            of = zip(*((r.logp, r.candidates, r.divergence, r.entropy) for r in outputs), strict=True)
            ups = zip(*upstreams, strict=True)
            ctx.foreseen = _Foreseen(sums, [_joined(u, like) for u, like in zip(ups, of, strict=True)])
        still = (None if query.learn_entropy else out.entropy, out.argmax, out.top_ids, out.top_logp)
        ctx.mark_non_differentiable(*(t for t in still if t is not None))
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        upstream = [grads[0], grads[3], grads[4], grads[1]]
        foreseen, ctx.foreseen = ctx.foreseen, None
        if foreseen is not None and (factor := _multiple(upstream, foreseen.upstream)) is not None:
            return None, *foreseen.sums.cast(factor)
        del foreseen
        run = HeadPass(ctx.query, hidden, weight, bias)
        sums = Gradients(run.of, ctx.needs_input_grad[1:])
        for part in run.of.slices():
            run.read(part)
            sums.add(part, run.slope(part, *(None if up is None else up[part] for up in upstream)))
        return None, *sums.cast()


def _joined(values: Sequence[torch.Tensor | None], like: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """One tensor of the chunks' tensors; a missing one is zeros of the shape of `like` where another is there."""
    if all(v is None for v in values):
        return None
    return torch.cat([_or_zeros(v, other) for v, other in zip(values, like, strict=True)])


def _or_zeros(value: torch.Tensor | None, like: torch.Tensor | None) -> torch.Tensor:
    if value is not None:
        return value
    assert like is not None
    return torch.zeros_like(like)


def _upstream(query: Query, part: slice, output: HeadOutput) -> tuple[torch.Tensor | None, ...]:
    """The gradient of a chunk's loss by its log-probs, candidates, divergence and entropy."""
    assert query.loss_of is not None
    wanted = (output.logp, output.candidates, output.divergence, output.entropy if query.learn_entropy else None)
    leaves = [None if t is None else t.detach().requires_grad_() for t in wanted]
    known = [t for t in leaves if t is not None]
    with torch.enable_grad():
        logp, candidates, divergence, entropy = leaves
        assert logp is not None
        entropy = output.entropy if entropy is None else entropy
        read = output._replace(logp=logp, candidates=candidates, divergence=divergence, entropy=entropy)
        loss = query.loss_of(part, read)
    found: Sequence[torch.Tensor | None] = [None] * len(known)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, known, allow_unused=True)
    rest = iter(found)
    return tuple(None if t is None else next(rest) for t in leaves)


def _multiple(got: Sequence[torch.Tensor | None], foreseen: Sequence[torch.Tensor | None]) -> float | None:
    """The number that times `foreseen` is `got`; None where there is none."""
    pairs = [(a, b) for a, b in zip(got, foreseen, strict=True) if a is not None or b is not None]
    if not pairs:
        return 1.0
    mine = torch.cat([_or_zeros(a, b).flatten().double() for a, b in pairs])
    theirs = torch.cat([_or_zeros(b, a).flatten().double() for a, b in pairs])
    size = theirs.square().sum()
    factor = (mine * theirs).sum() / size.where(size > 0, 1.0)
    close = (mine - factor * theirs).abs().max() <= SAME * mine.abs().max()
    # One question for a GPU's host to wait for. Where nothing differs the sums are used to the last bit.
    same, near, number = torch.stack([(mine == theirs).all().double(), close.double(), factor]).tolist()
    return 1.0 if same else number if near else None
