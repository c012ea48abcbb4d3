"""Whole next-token distributions at selected tokens, or candidates of them, one chunk of tokens at a time.

As in `vold.head`, no [tokens, vocabulary] tensor of a whole batch is kept: a chunk's logits are dropped after use and
computed again in the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from vold.errors import ConfigError
from vold.head import CHUNK_TOKENS, head_logits, is_linear, read_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

ABSENT = -1e4
"""Log-prob (nats) that stands for a candidate one of the models can not emit: its probability is an exact 0, and
differences of two such stay finite."""


class Distributions:
    """Next-token distributions of a model at some tokens, as hidden states and the head that turns them into logits.

    Args:
        states: [tokens, width] the states that predict each token.
        head: the output embedding, called on [chunk, width].
        banned: ids without probability.
        temperature: divides the logits.
    """

    def __init__(self, states: torch.Tensor, head: nn.Module, banned: torch.Tensor, temperature: float) -> None:
        self.states, self.head, self.banned, self.temperature = states, head, banned, temperature

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """[chunk, vocabulary] float32; minus infinity on banned ids."""
        return head_logits(states, self.head, self.banned, self.temperature)

    def at(self, tokens: torch.Tensor) -> Distributions:
        """Those of the tokens that a bool mask selects."""
        return Distributions(self.states[tokens], self.head, self.banned, self.temperature)

    def allowed(self, size: int) -> torch.Tensor:
        """[size] bool, true for ids below `size` that have a probability."""
        out = torch.ones(size, dtype=torch.bool, device=self.states.device)
        out[self.banned[self.banned < size]] = False
        return out


def divergence(student: Distributions, teacher: Distributions, compare: Divergence) -> torch.Tensor:
    """`compare(student_logits, teacher_logits)` at every token, over the ids that both models can emit.

    Both distributions are normalised over those ids. Ids beyond the narrower of two embedding tables take no part.

    Args:
        student: with gradient through its states and head.
        teacher: the same tokens; detached.
        compare: one of the full divergences of `vold.losses`.

    Returns:
        [tokens] float32 nats.
    """
    with torch.no_grad():
        size = min(d.logits(d.states[:1]).shape[-1] for d in (student, teacher))
    shared = (student.allowed(size) & teacher.allowed(size)).nonzero()[:, 0]

    def chunk(logits: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            reference = teacher.logits(theirs)[:, shared]
        return compare(logits[:, shared], reference)

    return _chunked(chunk, student, teacher.states)


def candidate_logprobs(model: Distributions, ids: torch.Tensor) -> torch.Tensor:
    """[tokens, k] float32 log-probs (nats) of `ids` [tokens, k]; `ABSENT` for an id the model can not emit.

    The log-probs are normalised over the whole vocabulary.
    """

    def chunk(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        inside = (wanted >= 0) & (wanted < logits.shape[-1])
        found = logits.gather(-1, wanted.where(inside, 0)) - logits.logsumexp(-1, keepdim=True)
        return found.masked_fill(~inside | (found < ABSENT), ABSENT)

    return _chunked(chunk, model, ids)


def candidate_divergence(student_logp: torch.Tensor, teacher_logp: torch.Tensor, compare: Divergence) -> torch.Tensor:
    """`compare` over candidates; one that only one of the models can emit is left out, as if neither could.

    Args:
        student_logp: [tokens, k] with gradient; `ABSENT` or less for what the student can not emit.
        teacher_logp: [tokens, k] the same of the teacher.
        compare: a divergence of `vold.losses` over the last axis.

    Returns:
        [tokens] nats.
    """
    apart = (student_logp <= ABSENT) | (teacher_logp <= ABSENT)
    return compare(student_logp.masked_fill(apart, ABSENT), teacher_logp.masked_fill(apart, ABSENT))


def top_logprobs(logp: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest ids [tokens, k] of log-probs [tokens, vocabulary], likeliest first, and their log-probs.

    Raises:
        ConfigError: there are fewer than k ids with a probability.
    """
    values, ids = logp.topk(min(k, logp.shape[-1]))
    if ids.shape[-1] < k or bool(values.isneginf().any()):
        raise ConfigError("more candidates are asked for than the model has tokens", got=str(k), fix="lower top_k")
    return ids, values


def top_of(model: Distributions, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`top_logprobs` of a model at its tokens."""
    parts = [top_logprobs(model.logits(s).log_softmax(-1), k) for s in model.states.split(CHUNK_TOKENS)]
    ids, values = zip(*parts, strict=True)
    return torch.cat(ids), torch.cat(values)


def _chunked(
    work: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], model: Distributions, other: torch.Tensor
) -> torch.Tensor:
    """`work(logits, other)` at every token."""
    if is_linear(model.head) and len(other):
        return read_logits(work, model.states, model.head, other, banned=model.banned, temperature=model.temperature)

    def chunk(states: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        return work(model.logits(states), part)

    parts = [
        checkpoint(chunk, a, b, use_reentrant=False) if torch.is_grad_enabled() else chunk(a, b)
        for a, b in zip(model.states.split(CHUNK_TOKENS), other.split(CHUNK_TOKENS), strict=True)
    ]
    return torch.cat(parts)
