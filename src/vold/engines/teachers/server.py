"""A teacher on vLLM servers: token ids go out, `prompt_logprobs` come back."""

from __future__ import annotations

import base64
import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.health import check_alive, check_same
from vold.engines.vllm import VllmClient
from vold.errors import AlignmentError, TeacherError
from vold.model.chat import Chat
from vold.model.loading import resolve
from vold.model.reading import read_config
from vold.model.tokenizers import banned_ids
from vold.types import ScoreRequest, TokenScores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike

    from vold.engines.teachers.backend import TeacherBackend
    from vold.run.model_sections import TextTeacher
    from vold.run.recipe import Recipe
    from vold.types import Sampler, Values

LOWEST = -9999.0
"""What vLLM writes for minus infinity, which JSON does not have."""


class ServerTeacher:
    """Scores response tokens on servers that hold one frozen model.

    vLLM scores given tokens at temperature 1, whatever a request says, so this teacher fits rollouts at temperature 1.
    Each call also scores the probe on every server: one that was restarted with another model, or with none, is
    noticed before its scores are used.

    Args:
        client: the servers.
        probe: a request with known answers, see `vold.engines.teachers.health`.
    """

    def __init__(self, client: VllmClient, probe: ScoreRequest) -> None:
        self.client, self.probe = client, probe
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
        replies = self.client.post("/completions", [_body(r) for r in requests])
        scores = [_read(r, reply) for r, reply in zip(requests, replies, strict=True)]
        wanted = [i for i, r in enumerate(requests) if r.candidate_ids is not None and len(r.response_ids)]
        # Only vLLM's route of ids in, ids out scores ids of one's own choice.
        bodies = [_candidates_body(requests[i]) for i in wanted]
        for i, reply in zip(wanted, self.client.post("/inference/v1/generate", bodies, root=True), strict=True):
            scores[i] = dataclasses.replace(scores[i], candidate_logp=_read_candidates(requests[i], reply))
        return scores

    def _probe(self, *, must: bool) -> TokenScores:
        """The first server's answer to the probe; those of the others are compared with it."""
        body = {"model": self.client.model, **_body(self.probe)}
        known = None if must else self.known
        for url, reply in zip(self.client.urls, self.client.each("/completions", body, must=must), strict=True):
            if reply is None:
                continue
            found = _read(self.probe, reply)
            check_alive(found, where=url)
            if known is not None:
                check_same(found, known, where=url)
            known = found if known is None else known
        assert known is not None
        return known


def _body(request: ScoreRequest) -> dict[str, Any]:
    # vLLM gives scores of a prompt only on the way to at least one token of its own.
    return {
        "prompt": _ids(request),
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": request.top_k,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def _read(request: ScoreRequest, reply: dict[str, Any]) -> TokenScores:
    ids = _ids(request)
    try:
        choice = reply["choices"][0]
        rows, echoed = choice["prompt_logprobs"], choice.get("prompt_token_ids")
    except (KeyError, IndexError, TypeError) as error:
        raise TeacherError(
            "the teacher's server does not score what it is sent", got=str(reply)[:200], fix="use vLLM 0.20 or newer"
        ) from error
    if echoed is not None and list(echoed) != ids:
        first = next(
            (i for i, (a, b) in enumerate(zip(ids, echoed, strict=False)) if a != b), min(len(ids), len(echoed))
        )
        raise AlignmentError(
            "the teacher's server has scored other tokens than it was sent",
            got=f"{len(echoed)} ids for {len(ids)}, the first that differs is number {first}",
            fix="send requests to vLLM itself, not through a gateway that rewrites prompts",
        )
    if not isinstance(rows, list) or len(rows) != len(ids):
        got = "nothing" if rows is None else f"{len(rows)} scores for {len(ids)} tokens"
        raise AlignmentError("the teacher's scores do not line up with the tokens sent", got=got)
    logp, top_ids, top_logp = [], [], []
    for token, row in zip(request.response_ids.tolist(), rows[len(request.prompt_ids) :], strict=True):
        if not isinstance(row, dict) or str(token) not in row:
            raise AlignmentError(
                "the teacher's server has scored other tokens than it was sent",
                got=f"no score of id {token}, but of {', '.join(list(row or ())[:4])}",
            )
        logp.append(row[str(token)]["logprob"])
        if request.top_k:
            best = sorted((v["rank"], int(k), v["logprob"]) for k, v in row.items() if v["rank"] <= request.top_k)
            top_ids.append([i for _, i, _ in best[: request.top_k]])
            top_logp.append([v for _, _, v in best[: request.top_k]])
    if not request.top_k:
        return TokenScores(_logp(logp))
    return TokenScores(_logp(logp), top_ids=top_ids, top_logp=_logp(top_logp))


def _candidates_body(request: ScoreRequest) -> dict[str, Any]:
    return {
        "token_ids": _ids(request),
        "sampling_params": {
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprob_token_ids": np.asarray(request.candidate_ids).tolist(),
            "prompt_logprob_start": len(request.prompt_ids) - 1,
        },
    }


def _read_candidates(request: ScoreRequest, reply: dict[str, Any]) -> Values:
    """[response, k] log-probs; vLLM sends them as a base64-encoded `.npy` file."""
    try:
        values = np.load(io.BytesIO(base64.b64decode(reply["prompt_token_id_logprobs"])), allow_pickle=False)
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherError("the teacher's server sends no scores of candidates", got=str(reply)[:200]) from error
    if request.candidate_ids is None or values.shape != request.candidate_ids.shape:
        raise AlignmentError(
            "the teacher's scores of candidates do not line up with the response", got=f"an array of {values.shape}"
        )
    return _logp(values)


def _ids(request: ScoreRequest) -> list[int]:
    return [*request.prompt_ids, *request.response_ids.tolist()]


def _logp(values: ArrayLike) -> Values:
    found = np.asarray(values, np.float32)
    return np.where(found <= LOWEST, np.float32(-np.inf), found)


@dataclass(frozen=True)
class ServerBackend:
    """A teacher on vLLM servers that all hold it. `banned` are ids that it must not answer with."""

    chat: Chat
    client: VllmClient
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
        return ServerSampler(self.client, end_id=self.chat.end_id, banned=self.banned)

    def scorer(self, probe: ScoreRequest, *, temperature: float, token_budget: int) -> ServerTeacher:
        """See `TeacherBackend`; servers score at temperature 1 and cut their own batches."""
        return ServerTeacher(self.client, probe)

    def context(self) -> int:
        """See `TeacherBackend`."""
        return self.client.context()

    def describe(self) -> str:
        """See `TeacherBackend`."""
        return f"{self.client.model} on {', '.join(self.client.urls)}"


def open_backend(recipe: Recipe, spec: TextTeacher) -> TeacherBackend:
    """See `vold.engines.teachers.backend.open_backend`; `spec` names servers."""
    assert spec.server is not None
    path = resolve(spec.path)
    chat = Chat.load(path)
    client = VllmClient(spec.server, role="teacher", error=TeacherError)
    return ServerBackend(chat, client, banned_ids(read_config(path), chat.tokenizer))
