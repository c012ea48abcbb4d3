"""A teacher in the training process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.divided import divides, load_divided
from vold.errors import ConfigError, TeacherError
from vold.model.batching import collate
from vold.model.lm_head.teacher_logits import ABSENT, Distributions
from vold.model.loading import load_certified
from vold.model.parallel import ALONE, Processes, processes
from vold.run.precision import precision
from vold.types import Prompt, ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.engines.teachers.backend import TeacherBackend
    from vold.model.batching import Sequences
    from vold.model.chat import Chat
    from vold.model.lm_head.fused import HeadOutput
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe
    from vold.run.teacher_sections import ScoringModel
    from vold.types import Sampler


class InProcessTeacher:
    """Scores response tokens with a model that is never changed.

    Args:
        policy: the teacher model.
        temperature: the rollout temperature; teacher and student are compared at the same one.
        token_budget: tokens per forward pass.
        probe: see `known`.
        group: the processes that its weights are divided over. All of them must call each method at once, with
            requests or without.
    """

    frozen = True

    def __init__(
        self,
        policy: Policy,
        *,
        temperature: float,
        token_budget: int,
        probe: ScoreRequest | None = None,
        group: Processes = ALONE,
    ) -> None:
        self.policy, self.temperature, self.token_budget, self._probe = policy, temperature, token_budget, probe
        self.group = group
        if self.frozen:
            policy.model.requires_grad_(False)
            policy.model.eval()

    @cached_property
    def known(self) -> TokenScores:
        """What it says of its probe; asked when somebody wants to know, as nothing can change this teacher."""
        assert self._probe is not None
        return self.score([self._probe])[0]

    def distributions(self, requests: Sequence[ScoreRequest]) -> Distributions:
        """Whole next-token distributions at every response token, request after request, without gradient. One pass."""
        batch = self._batch(requests)
        with torch.no_grad():
            states = self.policy.states(batch)
        return Distributions(states, self.policy.head, self.policy.banned, self.temperature)

    def keep_step(self) -> None:
        """A pass of others' weights: where they are divided, all processes pass equally often."""
        if self.group.world > 1:
            pad = self.policy.chat.pad_id
            with torch.no_grad():
                self.policy.states(collate([Prompt((pad,))], [(pad,)], [(1,)], pad))

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-prob (nats) of each response token, in request order; of candidates and of its own top k where asked.

        Raises:
            TeacherError: a log-prob is not a number (minus infinity is allowed: an id the teacher cannot emit).
            ConfigError: a top k beyond the vocabulary.
        """
        scores: dict[int, TokenScores] = {}
        prompts = [Prompt(r.prompt_ids, r.vision) for r in requests]
        lengths = [len(r.response_ids) for r in requests]
        groups = self.policy.micro_batches(prompts, lengths, self.token_budget)
        divided = self.group.teachers_divided
        passes = len(groups) if divided is None else self.group.most(len(groups), divided)
        # FSDP2 keeps what it gathers in tensors that outlast the pass, which tensors of inference mode must not.
        with torch.inference_mode() if self.group.world == 1 else torch.no_grad():
            for group in groups:
                part = [requests[i] for i in group]
                candidates = _candidates(part)
                read = self.policy.read(
                    self._batch(part),
                    temperature=self.temperature,
                    candidates=None if candidates is None else candidates.to(self.policy.model.device),
                    top_k=max(r.top_k for r in part),
                )
                read = read.on_host()
                if bool(read.logp.isnan().any()):
                    raise TeacherError(
                        "the teacher returned log-probs that are not numbers", where="in-process teacher"
                    )
                start = 0
                for i, request in zip(group, part, strict=True):
                    stop = start + len(request.response_ids)
                    scores[i] = _answer(request, read, slice(start, stop))
                    start = stop
        for _ in range(passes - len(groups)):
            self.keep_step()
        if self.group.world > 1:
            self.policy.model.reshard()
        return [scores[i] for i in range(len(requests))]

    def _batch(self, requests: Sequence[ScoreRequest]) -> Sequences:
        return collate(
            [Prompt(r.prompt_ids, r.vision) for r in requests],
            [r.response_ids for r in requests],
            [np.ones(len(r.response_ids)) for r in requests],
            self.policy.chat.pad_id,
        )


def _candidates(requests: Sequence[ScoreRequest]) -> torch.Tensor | None:
    """[tokens, most] ids of all requests; those of a request with fewer candidates, or none, are filled up with 0."""
    asked = [r.candidate_ids for r in requests]
    most = max((ids.shape[-1] for ids in asked if ids is not None), default=0)
    if most == 0:
        return None
    rows = np.zeros((sum(len(r.response_ids) for r in requests), most), np.int64)
    start = 0
    for request, ids in zip(requests, asked, strict=True):
        stop = start + len(request.response_ids)
        if ids is not None:
            rows[start:stop, : ids.shape[-1]] = ids
        start = stop
    return torch.from_numpy(rows)


def _answer(request: ScoreRequest, read: HeadOutput, part: slice) -> TokenScores:
    candidates = top_ids = top_logp = None
    if request.candidate_ids is not None and read.candidates is not None:
        values = read.candidates[part, : request.candidate_ids.shape[-1]]
        candidates = values.masked_fill(values == ABSENT, float("-inf")).numpy()
    if request.top_k and read.top_ids is not None and read.top_logp is not None:
        top_ids = read.top_ids[part, : request.top_k].numpy()
        top_logp = read.top_logp[part, : request.top_k].numpy()
    return TokenScores(read.logp[part].numpy(), candidates, top_ids, top_logp)


@dataclass(frozen=True)
class InProcessBackend:
    """A teacher in this process; `served_as` is its precision."""

    policy: Policy
    served_as: str
    group: Processes = ALONE

    on_servers = concurrent = False

    @property
    def chat(self) -> Chat:
        """See `TeacherBackend`."""
        return self.policy.chat

    @property
    def modules(self) -> list[torch.nn.Module]:
        """See `TeacherBackend`."""
        return [self.policy.model]

    def sampler(self, rows: int) -> Sampler:
        """See `TeacherBackend`."""
        return InProcessSampler(self.policy, rows)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> InProcessTeacher:
        """See `TeacherBackend`."""
        return InProcessTeacher(
            self.policy, temperature=temperature, token_budget=token_budget, probe=probe, group=self.group
        )

    def context(self) -> int:
        """See `TeacherBackend`."""
        return self.policy.context

    def describe(self) -> str:
        """See `TeacherBackend`."""
        model = self.policy.model
        return f"{type(model).__name__}, {model.num_parameters():,} parameters"


def open_backend(recipe: Recipe, spec: ScoringModel) -> TeacherBackend:
    """See `vold.engines.teachers.backend.open_backend`."""
    group, dtype = processes(), precision(recipe, spec.path, spec.dtype)
    kept = spec.model_copy(update={"dtype": dtype}).weights_in
    if (within := divides(recipe, group)) is None:
        return InProcessBackend(load_certified(recipe, spec.path, dtype, spec.quantize, group), kept)
    if spec.quantize is not None:
        raise ConfigError(
            "a quantised teacher is not divided over processes",
            where="teacher.quantize",
            got=f"{spec.quantize} with {group.world} processes",
            fix="set run.shard_teacher=never, or drop quantize",
        )
    return InProcessBackend(load_divided(recipe, spec.path, dtype, group, within), kept, group)
