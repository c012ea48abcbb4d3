"""One pass over the vocabulary, chunk by chunk: what `lm_head.logprobs` reads off the logits, and their gradient."""

from __future__ import annotations

import importlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vold.model.lm_head.chunked_logits import NEVER, Projection, is_linear
from vold.model.lm_head.fused_divergence import row_dot
from vold.model.lm_head.teacher_logits import ABSENT, top_logprobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.model.lm_head.teacher_logits import Against

    LossOf = Callable[[slice, "HeadOutput"], torch.Tensor]


class HeadOutput(NamedTuple):
    """What was read at every token; the last four where asked for.

    Attributes:
        logp: [tokens] float32 nats, of the target, with gradient; minus infinity for a banned one.
        entropy: [tokens] float32 nats, over the ids that can be sampled; with gradient where that was asked for.
        argmax: [tokens] int64, the most likely id.
        candidates: [tokens, k] float32 nats, with gradient; `ABSENT` for an id the model can not emit.
        divergence: [tokens] float32 nats, with gradient; 0 where the teacher term has no weight.
        top_ids: [tokens, top_k] int64, likeliest first.
        top_logp: [tokens, top_k] float32 nats, without gradient.
    """

    logp: torch.Tensor
    entropy: torch.Tensor
    argmax: torch.Tensor
    candidates: torch.Tensor | None = None
    divergence: torch.Tensor | None = None
    top_ids: torch.Tensor | None = None
    top_logp: torch.Tensor | None = None

    def on_host(self) -> HeadOutput:
        """The same in the host's memory."""
        fields: list[Any] = [None if t is None else t.cpu() for t in self]
        return HeadOutput(*fields)


@dataclass(frozen=True, eq=False)
class Query:
    """What `read_head` is to find at every token.

    Attributes:
        targets: [tokens] int64.
        banned: ids that can never be sampled (vision placeholders, padded rows).
        temperature: divides the logits; the same on student and teacher. 0 is greedy: it is reported at 1.
        chunk_tokens: how many tokens' logits exist at once; with 0 as many as fit `CHUNK_ELEMENTS`.
        candidates: [tokens, k] int64, ids whose log-probs are wanted too.
        top_k: how many of the likeliest ids are wanted.
        against: a teacher, for a divergence over the vocabulary.
        loss_of: from a range of tokens and their output to their addend of the loss. A promise that is checked: where
            the gradient that comes back is not a multiple of the one foreseen, it is computed again. Not to be given
            where the loss of a token depends on tokens that may be in another chunk.
        learn_entropy: whether the entropy has a gradient.
    """

    targets: torch.Tensor
    banned: torch.Tensor
    temperature: float = 1.0
    chunk_tokens: int = 0
    candidates: torch.Tensor | None = None
    top_k: int = 0
    against: Against | None = None
    loss_of: LossOf | None = None
    learn_entropy: bool = False


def places_of(query: Query) -> Callable[[slice], slice]:
    """From a range of tokens to that of the teacher's states that belong to the used ones of them."""
    used = [] if query.against is None else query.against.used.tolist()
    before = [0, *itertools.accumulate(used)]
    return lambda part: slice(before[part.start], before[part.stop])


def _kernels(query: Query, logits: torch.Tensor) -> Any:
    """`vold.model.lm_head.triton_kernels` where it can answer the query, None elsewhere.

    Triton's interpreter takes tensors on a CPU too, which is how the kernels are tested without a GPU.
    """
    here = logits.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    more = query.candidates is not None or query.against is not None or query.top_k or query.learn_entropy
    if not here or more or logits.dtype != torch.float32:
        return None
    try:
        return importlib.import_module("vold.model.lm_head.triton_kernels")
    except ImportError:
        return None


class HeadPass:
    """One pass over the chunks of a batch: `read` makes a chunk's logits and reads them, `slope` turns what is left of
    them into the loss's gradient by the logits. Both work in the same few buffers."""

    def __init__(self, query: Query, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.query = query
        self.of = Projection(hidden, weight, bias, query.banned, query.temperature, query.chunk_tokens)
        self.kernels = _kernels(query, self.of.buffer)
        self.never = torch.zeros(len(weight), dtype=torch.bool, device=weight.device).index_fill_(0, query.banned, True)
        self.spare = None if self.kernels is not None else torch.empty_like(self.of.buffer)
        if query.against is not None:
            self.teacher = _Teacher(query.against, weight.shape[0], query.banned, self.of.size, places_of(query))

    def read(self, part: slice) -> HeadOutput:
        """What the query asks for, at the tokens of a chunk."""
        query, y = self.query, self.query.targets[part, None]
        z = self.of.logits(part)
        if self.kernels is not None:
            logp, entropy, argmax, self.norm = self.kernels.read(z, y[:, 0])
            self.z = z
            return HeadOutput(self._possible(logp, y), entropy, argmax)
        assert self.spare is not None
        top = z.argmax(-1, keepdim=True)
        self.p = p = torch.softmax(z, -1, out=self.spare[: len(z)])
        norm = z.gather(-1, top) - p.gather(-1, top).log()
        logp = self._possible((z.gather(-1, y) - norm)[:, 0], y)
        candidates = divergence = top_ids = top_logp = None
        if query.candidates is not None:
            ids = query.candidates[part]
            inside = (ids >= 0) & (ids < z.shape[-1])
            found = z.gather(-1, ids.where(inside, 0)) - norm
            self.missing = ~inside | (found < ABSENT)
            candidates = found.masked_fill_(self.missing, ABSENT)
        if query.top_k:
            top_ids, top_logp = top_logprobs(z, query.top_k)
            top_logp = (top_logp - norm).float()
        if query.against is None:
            entropy = norm[:, 0] - z.mul_(p).sum(-1)
        else:
            student = z.sub_(norm)
            entropy = -row_dot(p, student)
            divergence = self.teacher.compare(part, student, p)
        self.entropy = entropy
        return HeadOutput(
            logp, entropy.float(), top[:, 0],
            None if candidates is None else candidates.float(),
            None if divergence is None else divergence.float(),
            top_ids, top_logp,
        )  # fmt: skip

    def _possible(self, logp: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if len(self.query.banned):
            logp.masked_fill_(self.never[targets[:, 0]], float("-inf"))
        return logp.float()

    def slope(
        self,
        part: slice,
        logp: torch.Tensor | None,
        candidates: torch.Tensor | None,
        divergence: torch.Tensor | None,
        entropy: torch.Tensor | None,
    ) -> torch.Tensor:
        """The gradient by the logits of the chunk that was read last, from that by what was read; in their memory.

        d log p_y / d z_j = [j = y] - p_j, for the target as for a candidate; d H / d z_j = -p_j (log p_j + H).
        """
        y, dtype = self.query.targets[part, None], self.of.dtype
        if self.kernels is not None:
            up = torch.zeros(len(y), device=y.device) if logp is None else logp
            gradient: torch.Tensor = self.kernels.turn_into_gradient(self.z, y[:, 0], self.norm, up.contiguous())
            return gradient
        out: torch.Tensor | None = None
        bent = None if entropy is None else self._entropy_slope().mul_(entropy[:, None].to(dtype))
        if logp is not None or candidates is not None:
            total = torch.zeros(len(y), 1, dtype=dtype, device=y.device)
            pulls = list[tuple[torch.Tensor, torch.Tensor]]()
            if logp is not None:
                pulls.append((y, logp[:, None].to(dtype)))
            if candidates is not None:
                assert self.query.candidates is not None
                ids = self.query.candidates[part]
                pulls.append((ids.masked_fill(self.missing, 0), candidates.to(dtype).masked_fill(self.missing, 0.0)))
            for _, up in pulls:
                total += up.sum(-1, keepdim=True)
            out = self.p.mul_(-total)
            for ids, up in pulls:
                out.scatter_add_(-1, ids, up)
        if divergence is not None and (steep := self.teacher.slope) is not None:
            rows = self.teacher.rows
            steep.mul_(divergence[rows, None].to(dtype))
            if out is None and bent is None and steep.shape == self.p.shape:
                return steep
            out = self.p.zero_() if out is None else out
            out[:, : steep.shape[1]].index_add_(0, rows, steep)
        out = self.p.zero_() if out is None else out
        return out if bent is None else out.add_(bent)

    def _entropy_slope(self) -> torch.Tensor:
        """d H / d z [chunk, vocabulary]; in the memory of the logits, where no teacher's comparison lies there."""
        room = self.of.buffer[: len(self.p)] if self.query.against is None else torch.empty_like(self.p)
        torch.special.entr(self.p, out=room)
        return room.addcmul_(self.p, self.entropy[:, None], value=-1)


class _Teacher:
    """The teacher's side of `HeadPass`: its logits in a buffer of their own, and what a comparison leaves behind."""

    def __init__(
        self, against: Against, ids: int, banned: torch.Tensor, chunk: int, places: Callable[[slice], slice]
    ) -> None:
        self.against, self.places = against, places
        shared = against.shared(ids, banned)
        self.size = len(shared)
        own = torch.ones(ids, dtype=torch.bool, device=banned.device).index_fill_(0, banned, False)
        emitted, can = torch.stack([shared.sum(), own.sum()]).tolist()  # a GPU's host waits here, and not for `closed`
        self.closed = shared.byte().argsort(stable=True)[: self.size - emitted]
        self.alike = emitted == can
        """Whether the student can emit the shared ids and no others, so that its log-probs are those wanted."""
        teacher = against.teacher
        self.of: Projection | None = None
        if is_linear(teacher.head):
            nothing = self.closed[:0]
            head = teacher.head
            self.of = Projection(
                teacher.states.detach(), head.weight.detach(), head.bias, nothing, teacher.temperature or 1.0, chunk
            )

    def compare(self, part: slice, student: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        """The divergence at the tokens of a chunk [chunk]; `student` [chunk, ids] is overwritten, `probs` read."""
        self.rows = self.against.used[part].nonzero()[:, 0].to(student.device, non_blocking=True)
        self.slope: torch.Tensor | None = None
        out = student.new_zeros(len(student))
        if not len(self.rows):
            return out
        there = self.places(part)
        theirs = self.against.teacher.logits(there) if self.of is None else self.of.logits(there)
        theirs = theirs[:, : self.size].to(student.dtype).index_fill_(-1, self.closed, NEVER)
        theirs = torch.log_softmax(theirs, -1, out=theirs)
        student, probs = student[:, : self.size], probs[:, : self.size]
        if len(self.rows) < len(student):
            student, probs = student[self.rows], probs[self.rows]
        if not self.alike:
            student = student.index_fill(-1, self.closed, NEVER).log_softmax(-1)
            probs = student.exp()
        value, self.slope = self.against.divergence.in_place(student, theirs, probs)
        return out.index_copy_(0, self.rows, value)
