"""A text-only teacher in the training process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.batching import collate, micro_batches
from vold.errors import TeacherError
from vold.types import Prompt, ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.policy import Policy


class InProcessTeacher:
    """Scores response tokens with a causal LM that is never changed.

    Args:
        policy: the teacher model.
        temperature: the rollout temperature; teacher and student are compared at the same one.
        token_budget: padded tokens per forward pass.
    """

    def __init__(self, policy: Policy, *, temperature: float, token_budget: int) -> None:
        self.policy, self.temperature, self.token_budget = policy, temperature, token_budget
        policy.model.requires_grad_(False)
        policy.model.eval()

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-prob (nats) of each response token, in request order.

        Raises:
            TeacherError: a log-prob is not a number (minus infinity is allowed: an id the teacher cannot emit).
        """
        scores: list[TokenScores] = [TokenScores(())] * len(requests)
        lengths = [len(r.prompt_ids) + len(r.response_ids) for r in requests]
        with torch.inference_mode():
            for group in micro_batches(lengths, self.token_budget):
                part = [requests[i] for i in group]
                batch = collate(
                    [Prompt(r.prompt_ids) for r in part],
                    [r.response_ids for r in part],
                    [(1,) * len(r.response_ids) for r in part],
                    self.policy.chat.pad_id,
                )
                logp, _, _ = self.policy.logprobs(batch, temperature=self.temperature)
                if bool(logp.isnan().any()):
                    raise TeacherError(
                        "the teacher returned log-probs that are not numbers", where="in-process teacher"
                    )
                pieces = logp.split([len(r.response_ids) for r in part])
                for i, piece in zip(group, pieces, strict=True):
                    scores[i] = TokenScores(tuple(piece.tolist()))
        return scores
