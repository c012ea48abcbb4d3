"""Whole next-token distributions at selected tokens, or candidates of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vold.errors import ConfigError
from vold.model.lm_head.chunked_logits import NEVER, head_logits, is_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from vold.model.lm_head.fused_divergence import FullDivergence

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

    @property
    def ids(self) -> int:
        """How many ids the head has logits for."""
        return self.head.weight.shape[0] if is_linear(self.head) else self.logits(slice(0, 1)).shape[-1]

    @torch.no_grad()
    def logits(self, part: slice) -> torch.Tensor:
        """[part, ids] in float32, without gradient; minus infinity on banned ids."""
        return head_logits(self.states[part], self.head, self.banned, self.temperature)

    def at(self, tokens: torch.Tensor) -> Distributions:
        """Those of the tokens that a bool mask on the host selects."""
        places = tokens.nonzero()[:, 0].to(self.states.device, non_blocking=True)
        return Distributions(self.states[places], self.head, self.banned, self.temperature)


@dataclass(frozen=True, eq=False)
class Against:
    """A teacher that a student is compared with at some tokens of a batch.

    The divergence is taken over the ids that both can emit, and both are normalised over those. Ids beyond the
    narrower of two embedding tables take no part.

    Attributes:
        teacher: its distributions at the tokens that `used` selects, in their order; no gradient reaches them.
        used: [tokens] bool on the host, at least one of them true.
        divergence: what is computed; 0 at the other tokens.
    """

    teacher: Distributions
    used: torch.Tensor
    divergence: FullDivergence

    def shared(self, ids: int, banned: torch.Tensor) -> torch.Tensor:
        """[size] bool, true for an id that a student with so many ids and these bans can emit, and the teacher too."""
        size = min(ids, self.teacher.ids)
        out = torch.ones(max(ids, self.teacher.ids), dtype=torch.bool, device=banned.device)
        for never in (banned, self.teacher.banned.to(banned.device)):
            out.index_fill_(0, never, False)
        return out[:size]


def candidate_divergence(student_logp: torch.Tensor, teacher_logp: torch.Tensor, compare: Divergence) -> torch.Tensor:
    """`compare` over candidates; one that only one of the models can emit is left out, as if neither could.

    Args:
        student_logp: [tokens, k] with gradient; `ABSENT` or less for what the student can not emit.
        teacher_logp: [tokens, k] the same of the teacher.
        compare: a divergence of `vold.objective.losses` over the last axis.

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
    if ids.shape[-1] < k or bool((values <= NEVER / 2).any()):
        raise ConfigError("more candidates are asked for than the model has tokens", got=str(k), fix="lower top_k")
    return ids, values
