"""Token log-probs from hidden states without a [tokens, vocabulary] tensor for the whole batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import nn

CHUNK_TOKENS = 1024
"""Tokens whose logits exist at the same time: 1,024 x 151,936 in float32 is 0.6 GB."""


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
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-prob of each target, and the entropy and most likely token of each distribution.

    Logits are computed and dropped chunk by chunk, and computed again in the backward pass. The log-prob carries the
    gradient; entropy and favourite are detached.

    Args:
        hidden: [tokens, width], the states that predict `targets`.
        head: the output embedding, called on [chunk, width].
        targets: [tokens] int64.
        banned: ids that can never be sampled (vision placeholders, padded rows); their log-prob is -inf.
        temperature: divides the logits; the same on student and teacher.
        chunk_tokens: how many tokens' logits exist at once.

    Returns:
        ([tokens] float32 nats, [tokens] float32 nats, [tokens] int64).
    """

    def chunk(h: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = head_logits(h, head, banned, temperature)
        normaliser = logits.logsumexp(-1)
        logp = logits.gather(-1, t[:, None])[:, 0] - normaliser
        with torch.no_grad():
            probs = (logits - normaliser[:, None]).exp()
            entropy = normaliser - (probs * logits.masked_fill(probs == 0, 0.0)).sum(-1)
            favourite = logits.argmax(-1)
        return logp, entropy, favourite

    if not len(targets):
        empty = hidden.sum() * 0.0 + hidden.new_zeros(0, dtype=torch.float32)
        return empty, empty.detach(), torch.zeros(0, dtype=torch.int64, device=hidden.device)
    parts = [
        checkpoint(chunk, h, t, use_reentrant=False) if torch.is_grad_enabled() else chunk(h, t)
        for h, t in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    ]
    logps, entropies, favourites = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies), torch.cat(favourites)
