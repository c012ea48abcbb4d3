"""A teacher on vLLM servers: token ids go out, `prompt_logprobs` come back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vold.engines.replies import MOST_IDS
from vold.engines.samplers.server import ServerSampler
from vold.engines.seen import ROUTE
from vold.engines.shown import body, read, route
from vold.engines.teachers.health import check_alive, check_distribution, check_same, check_scores
from vold.engines.teachers.prompt_logprobs import ids_of, read_candidates, read_scores
from vold.engines.vllm import VllmClient
from vold.errors import AlignmentError, TeacherError
from vold.model.chat import Chat
from vold.model.reading import read_config
from vold.model.tokenizers import banned_ids
from vold.run.shipped import resolve
from vold.types import ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from vold.engines.replies import VllmReply
    from vold.engines.teachers.backend import TeacherBackend
    from vold.run.recipe import Recipe
    from vold.run.records import JsonObject
    from vold.run.teacher_sections import ScoringModel
    from vold.types import Sampler


class ServerTeacher:
    """Scores response tokens on servers that hold one frozen model.

    vLLM scores given tokens at temperature 1, whatever a request says, so this teacher fits rollouts at temperature 1.
    Each call also scores the probe on every server: one that was restarted with another model, or with none, is
    noticed before its scores are used.

    Args:
        client: the servers.
        probe: a request with known answers, see `vold.engines.teachers.health`.
        rows: ids the teacher has.
    """

    def __init__(self, client: VllmClient, probe: ScoreRequest, rows: int = MOST_IDS) -> None:
        self.client, self.probe, self.rows = client, probe, rows
        with client.awake():
            self.known = self._probe(must=True)

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-prob (nats) of each response token, in request order; see `vold.types.TokenScores` for the rest.

        Raises:
            AlignmentError: a server has scored other tokens than it was sent.
            TeacherError: no server answers within its patience, one refuses a request, or one has changed its model.
        """
        if not requests:
            return []
        with self.client.awake():
            scores = self._ask(requests)
            self._probe(must=False)
        return scores

    def _ask(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        path = route(requests, TeacherError)
        told = [r.pictures.task if r.pictures else "" for r in requests]
        replies = self.client.post(path, [_body(r, path) for r in requests], root=path == ROUTE, tasks=told)
        scores = [self._read(r, reply, path) for r, reply in zip(requests, replies, strict=True)]
        wanted = [i for i, r in enumerate(requests) if r.candidate_ids is not None and len(r.response_ids)]
        # Only vLLM's route of ids in, ids out scores ids of one's own choice.
        bodies, names = [_candidates_body(requests[i]) for i in wanted], [told[i] for i in wanted]
        for i, reply in zip(wanted, self.client.post(ROUTE, bodies, root=True, tasks=names), strict=True):
            if (pictures := requests[i].pictures) is not None:
                whole = read(reply, pictures, error=AlignmentError)
                whole.echoes(whole.value, ids_of(requests[i]), error=AlignmentError)
            scores[i] = dataclasses.replace(scores[i], candidate_logp=read_candidates(requests[i], reply))
        for request, found, reply in zip(requests, scores, replies, strict=True):
            check_scores(request, found, where=reply.url)
            check_distribution(request, found, where=reply.url)
        return scores

    def _probe(self, *, must: bool) -> TokenScores:
        """The first server's answer to the probe; those of the others are compared with it."""
        path = route([self.probe], TeacherError)
        body = {"model": self.client.model, **_body(self.probe, path)}
        known = None if must else self.known
        replies = self.client.each(path, body, root=path == ROUTE, must=must)
        for url, reply in zip(self.client.urls, replies, strict=True):
            if reply is None:
                continue
            found = self._read(self.probe, reply, path)
            check_alive(found, where=url)
            if known is not None:
                check_same(found, known, where=url)
            known = found if known is None else known
        assert known is not None
        return known

    def _read(self, request: ScoreRequest, reply: VllmReply, path: str) -> TokenScores:
        if path == ROUTE:
            reply = read(reply, request.pictures, error=AlignmentError)
        return read_scores(request, reply, self.rows)


def _body(request: ScoreRequest, path: str) -> JsonObject:
    # vLLM gives scores of a prompt only on the way to at least one token of its own.
    if path == ROUTE:
        sampling = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": request.top_k, "detokenize": False}
        return body(request.prompt_ids, request.pictures, request.response_ids.tolist(), sampling)
    return {
        "prompt": ids_of(request),
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": request.top_k,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def _candidates_body(request: ScoreRequest) -> JsonObject:
    sampling = {
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprob_token_ids": np.asarray(request.candidate_ids).tolist(),
        "prompt_logprob_start": len(request.prompt_ids) - 1,
    }
    return body(request.prompt_ids, request.pictures, request.response_ids.tolist(), sampling)


@dataclass(frozen=True)
class ServerBackend:
    """A teacher on vLLM servers that all hold it. It has `rows` ids; `banned` are those it must not answer with."""

    chat: Chat
    client: VllmClient
    rows: int
    banned: list[int]

    on_servers = True

    @property
    def modules(self) -> list[torch.nn.Module]:
        """See `TeacherBackend`."""
        return []

    @property
    def concurrent(self) -> bool:
        """See `TeacherBackend`: servers that sleep share a device with the student."""
        return not self.client.sleep

    @property
    def served_as(self) -> str:
        """See `TeacherBackend`."""
        return f"server {self.client.model}"

    def sampler(self, rows: int) -> Sampler:
        """See `TeacherBackend`; servers decide themselves how many rows run side by side."""
        return ServerSampler(self.client, end_id=self.chat.end_id, rows=self.rows, banned=self.banned)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> ServerTeacher:
        """See `TeacherBackend`; servers score at temperature 1 and cut their own batches."""
        return ServerTeacher(self.client, probe, self.rows)

    def context(self) -> int:
        """See `TeacherBackend`."""
        return self.client.context()

    def describe(self) -> str:
        """See `TeacherBackend`."""
        return f"{self.client.model} on {', '.join(self.client.urls)}"


def open_backend(recipe: Recipe, spec: ScoringModel) -> TeacherBackend:
    """See `vold.engines.teachers.backend.open_backend`; `spec` names servers."""
    assert spec.server is not None
    path = resolve(spec.path)
    chat = Chat.load(path)
    client = VllmClient(spec.server, role="teacher", error=TeacherError)
    config = read_config(path)
    return ServerBackend(chat, client, int(config.get_text_config().vocab_size), banned_ids(config, chat.tokenizer))
