"""One token of each row: from a state of the model to an id, its log-prob and the candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.errors import ConfigError, SamplerError
from vold.model.lm_head.chunked_logits import head_logits
from vold.types import Completion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vold.model.policy import Policy
    from vold.types import Finish, SamplingParams


class Draw:
    """What one call draws from: the head of the model, the ids that may come, and how.

    Args:
        policy: the model.
        params: how to sample.

    Raises:
        ConfigError: there are fewer ids than candidates.
    """

    def __init__(self, policy: Policy, params: SamplingParams) -> None:
        self.head, self.banned, self.params = policy.model.get_output_embeddings(), policy.banned, params
        self.end_id = policy.chat.end_id
        if params.candidates > policy.rows - len(self.banned):
            raise ConfigError(
                "more candidates are asked for than the model has tokens",
                got=str(params.candidates),
                fix="lower top_k",
            )

    @property
    def told(self) -> int:
        """Numbers that are told of a token: its id, its log-prob and the candidates."""
        return 2 + self.params.candidates

    def tokens(self, states: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A token of each row, without waiting for the device.

        Args:
            states: [rows, width] last hidden states.
            uniforms: [rows] float64 in [0, 1), one random number a row.

        Returns:
            Ids [rows] int64, and [rows, told] int32: id, the bits of the float32 log-prob (NaN where the distribution
            is not finite), candidates.
        """
        logp = head_logits(states, self.head, self.banned, self.params.temperature).log_softmax(-1)
        token = logp.argmax(-1) if self.params.temperature == 0 else inverse_cdf(logp, uniforms)
        told = [token[:, None].int(), logp.gather(-1, token[:, None]).view(torch.int32)]
        if self.params.candidates:
            told.append(logp.topk(self.params.candidates).indices.int())
        return token, torch.cat(told, -1)

    def completion(self, told: NDArray[np.int32], stop: bool) -> Completion:
        """A whole row, `told` [response, told]; `stop` where it ends with the end token.

        Raises:
            SamplerError: a distribution was not finite.
        """
        finish: Finish = "stop" if stop else "length"
        best = told[:, 2:].copy() if self.params.candidates else None
        return Completion(told[:, 0].copy(), logps_of(told), np.ones(len(told)), finish, best)


def logps_of(told: NDArray[np.int32]) -> NDArray[np.float32]:
    """The log-probs of what `Draw.tokens` told, [..., told].

    Raises:
        SamplerError: one is not a number.
    """
    logps = told[..., 1].copy().view(np.float32)
    if np.isnan(logps).any():
        raise SamplerError("the student's next-token distribution is not finite", fix="lower the learning rate")
    return logps


def inverse_cdf(logp: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token whose slice of the cumulative distribution holds `uniform` ([rows] in [0, 1))."""
    cumulative = logp.exp().cumsum(-1, dtype=torch.float64)
    token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return token.clamp(max=logp.shape[-1] - 1)
