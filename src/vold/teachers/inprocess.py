"""A teacher in the training process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vold.batching import collate
from vold.distributions import ABSENT, Distributions, candidate_logprobs, top_of
from vold.errors import TeacherError
from vold.head import token_logprobs
from vold.types import Prompt, ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.batching import Sequences
    from vold.policy import Policy


class InProcessTeacher:
    """Scores response tokens with a model that is never changed.

    Args:
        policy: the teacher model.
        temperature: the rollout temperature; teacher and student are compared at the same one.
        token_budget: tokens per forward pass.
    """

    def __init__(self, policy: Policy, *, temperature: float, token_budget: int) -> None:
        self.policy, self.temperature, self.token_budget = policy, temperature, token_budget
        policy.model.requires_grad_(False)
        policy.model.eval()

    def distributions(self, requests: Sequence[ScoreRequest]) -> Distributions:
        """Whole next-token distributions at every response token, request after request, without gradient."""
        batch = self._batch(requests).to(self.policy.model.device)
        with torch.no_grad():
            return self._read(self.policy.states(batch))

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-prob (nats) of each response token, in request order; of candidates and of its own top k where asked.

        Raises:
            TeacherError: a log-prob is not a number (minus infinity is allowed: an id the teacher cannot emit).
            ConfigError: a top k beyond the vocabulary.
        """
        scores: list[TokenScores] = [TokenScores(())] * len(requests)
        prompts = [Prompt(r.prompt_ids, r.vision) for r in requests]
        lengths = [len(r.response_ids) for r in requests]
        with torch.inference_mode():
            for group in self.policy.micro_batches(prompts, lengths, self.token_budget):
                part = [requests[i] for i in group]
                batch = self._batch(part).to(self.policy.model.device)
                states = self.policy.states(batch)
                head = self.policy.model.get_output_embeddings()
                logp, _, _ = token_logprobs(
                    states, head, batch.targets, banned=self.policy.banned, temperature=self.temperature
                )
                if bool(logp.isnan().any()):
                    raise TeacherError(
                        "the teacher returned log-probs that are not numbers", where="in-process teacher"
                    )
                lengths_here = [len(r.response_ids) for r in part]
                for i, piece, own in zip(group, logp.split(lengths_here), states.split(lengths_here), strict=True):
                    scores[i] = self._answer(requests[i], piece, own)
        return scores

    def _answer(self, request: ScoreRequest, logp: torch.Tensor, states: torch.Tensor) -> TokenScores:
        read = self._read(states)
        candidates = top_ids = top_logp = None
        if request.candidate_ids is not None and len(states):
            ids = torch.tensor(request.candidate_ids, device=states.device)
            values = candidate_logprobs(read, ids)
            candidates = _rows(values.masked_fill(values == ABSENT, float("-inf")))
        if request.top_k and len(states):
            ids, values = top_of(read, request.top_k)
            top_ids, top_logp = _rows(ids), _rows(values)
        return TokenScores(tuple(logp.tolist()), candidates, top_ids, top_logp)

    def _batch(self, requests: Sequence[ScoreRequest]) -> Sequences:
        return collate(
            [Prompt(r.prompt_ids, r.vision) for r in requests],
            [r.response_ids for r in requests],
            [(1,) * len(r.response_ids) for r in requests],
            self.policy.chat.pad_id,
        )

    def _read(self, states: torch.Tensor) -> Distributions:
        return Distributions(states, self.policy.model.get_output_embeddings(), self.policy.banned, self.temperature)


def _rows(values: torch.Tensor) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, values.tolist()))
