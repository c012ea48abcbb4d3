"""One token of each row: from a state of the model to an id, its log-prob and the candidates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.errors import ConfigError, Diverged
from vold.model.lm_head.chunked_logits import head_logits
from vold.types import Completion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vold.model.policy import Policy
    from vold.types import Finish, SamplingParams


SLACK = 8
"""Tokens that are read before those that can hold a stop string: the first of a text may be spelled in another way."""


class Draw:
    """What one call draws from: the head of the model, the ids that may come, and how.

    Args:
        policy: the model.
        params: how to sample.

    Raises:
        ConfigError: there are fewer ids than candidates.
    """

    def __init__(self, policy: Policy, params: SamplingParams) -> None:
        self.head, self.banned, self.params = policy.head, policy.banned, params
        self.end_id, self._text = policy.chat.end_id, policy.chat.text
        self._reach = SLACK + max((len(text.encode()) for text in params.stop), default=0)
        self.most_kept = min(params.most_kept or policy.rows, policy.rows)
        if params.candidates > policy.rows - len(self.banned):
            raise ConfigError(
                "more candidates are asked for than the model has tokens",
                got=str(params.candidates),
                fix="lower top_k",
            )

    @property
    def told(self) -> int:
        """Numbers that are told of a token: its id, its log-prob, the candidates and the kept ids."""
        return 2 + self.params.candidates + (self.most_kept if self.params.kept else 0)

    def tokens(self, states: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A token of each row, without waiting for the device.

        Args:
            states: [rows, width] last hidden states.
            uniforms: [rows] float64 in [0, 1), one random number a row.

        Returns:
            Ids [rows] int64, and [rows, told] int32: id, the bits of the float32 log-prob (NaN where the distribution
            is not finite), candidates, kept ids.
        """
        whole = logp = head_logits(states, self.head, self.banned, self.params.temperature).log_softmax(-1)
        kept = None
        if self.params.narrowing:
            logp, kept = truncated(whole, self.params, self.most_kept)
        token = logp.argmax(-1) if self.params.temperature == 0 else inverse_cdf(logp, uniforms)
        told = [token[:, None].int(), logp.gather(-1, token[:, None]).view(torch.int32)]
        if self.params.candidates:
            told.append(whole.topk(self.params.candidates).indices.int())
        if kept is not None and self.params.kept:
            told.append(kept.int())
        return token, torch.cat(told, -1)

    def stopped(self, ids: NDArray[np.int32], new: int) -> int | None:
        """How many of a response's ids there are up to the one that completes a stop string; None where none of the
        last `new` does. A token adds a byte at least, so that a few of them are all that has to be read."""
        for end in range(len(ids) - new + 1, len(ids) + 1) if self.params.stop else ():
            text = self._text(ids[max(0, end - self._reach) : end])
            if any(stop in text for stop in self.params.stop):
                return end
        return None

    def completion(self, told: NDArray[np.int32], stop: bool) -> Completion:
        """A whole row, `told` [response, told]; `stop` where it ends with the end token or a stop string.

        Raises:
            Diverged: a distribution was not finite.
        """
        finish: Finish = "stop" if stop else "length"
        end = 2 + self.params.candidates
        best = told[:, 2:end].copy() if self.params.candidates else None
        kept = told[:, end:]
        support = kept[:, : (kept >= 0).sum(1).max(initial=1)].copy() if self.params.kept else None
        return Completion(told[:, 0].copy(), logps_of(told), np.ones(len(told)), finish, best, support)


def logps_of(told: NDArray[np.int32]) -> NDArray[np.float32]:
    """The log-probs of what `Draw.tokens` told, [..., told].

    Raises:
        Diverged: one is not a number.
    """
    logps = told[..., 1].copy().view(np.float32)
    if np.isnan(logps).any():
        raise Diverged("the student's next-token distribution is not finite", fix="lower the learning rate")
    return logps


def truncated(logp: torch.Tensor, params: SamplingParams, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The distributions [rows, ids] over the ids that are kept, minus infinity at all others, and those ids
    [rows, most], the likeliest first, with -1 after the last.

    `top_k` and `min_p` come first, and `top_p` is of the mass that they leave, as in vLLM.
    """
    values, ids = logp.topk(most)
    keep = values > float("-inf")
    if params.min_p > 0:
        keep &= values >= values[:, :1] + math.log(params.min_p)
    if params.top_p < 1:
        chances = values.masked_fill(~keep, float("-inf")).softmax(-1, dtype=torch.float64)
        keep &= chances.cumsum(-1) - chances < params.top_p
    values = values.masked_fill(~keep, float("-inf")).log_softmax(-1)
    return torch.full_like(logp, float("-inf")).scatter(-1, ids, values), ids.masked_fill(~keep, -1)


def inverse_cdf(logp: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token whose slice of the cumulative distribution holds `uniform` ([rows] in [0, 1))."""
    cumulative = logp.exp().cumsum(-1, dtype=torch.float64)
    token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return token.clamp(max=logp.shape[-1] - 1)
