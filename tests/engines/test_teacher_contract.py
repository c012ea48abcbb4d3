"""What every teacher must do, whatever it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from engine_backends import PROBE, RealVllm, client, text_model
from vllm_server import VllmServer
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.routed import RoutedTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.model.policy import Policy
from vold.types import ScoreRequest, Teacher, TokenScores

ATOL = 2e-5
"""Nats between two float32 programs that do the same sums in another order."""


@dataclass
class Backend:
    teacher: Teacher
    model: Policy
    candidates: bool = True


@pytest.fixture(
    scope="module",
    params=[
        "in-process",
        "server",
        "two servers",
        "cached",
        "cached server",
        "routed",
        pytest.param("vllm", marks=pytest.mark.engines),
    ],
)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    model = text_model(1)
    inner = InProcessTeacher(text_model(1), temperature=1.0, token_budget=64)
    home = tmp_path_factory.mktemp("scores")
    if request.param == "in-process":
        yield Backend(inner, model)
    elif request.param == "cached":
        yield Backend(CachedTeacher(inner, home, "tiny"), model)
    elif request.param == "routed":
        other = InProcessTeacher(text_model(2), temperature=1.0, token_budget=64)
        yield Backend(RoutedTeacher({"": inner, "other": other}), model)
    elif request.param == "vllm":
        server: RealVllm = request.getfixturevalue("vllm_teacher")
        # Candidates need vLLM's second model runner, which needs Triton and with it a GPU.
        yield Backend(ServerTeacher(client(server.url, patience=120), PROBE), model, candidates=False)
    else:
        with VllmServer(text_model(1)) as one, VllmServer(text_model(1)) as two:
            urls = [one.url, two.url] if request.param == "two servers" else [one.url]
            teacher: Teacher = ServerTeacher(client(*urls), PROBE)
            yield Backend(CachedTeacher(teacher, home, "tiny") if "cached" in request.param else teacher, model)


REQUESTS = [
    ScoreRequest((20, 21, 22), (30, 31, 32, 33, 40)),
    ScoreRequest((25,), (26,)),
    ScoreRequest((50, 3, 60, 61), (4, 45, 45, 45, 2)),
    ScoreRequest(tuple(range(20, 60)), tuple(range(60, 100))),
]


def dense(model: Policy, request: ScoreRequest) -> torch.Tensor:
    """[response, vocabulary] log-probs in float64, from one plain forward pass over the ids."""
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([[*request.prompt_ids, *request.response_ids]])).logits[0]
    logp: torch.Tensor = logits.double().index_fill(-1, model.banned, float("-inf")).log_softmax(-1)
    return logp[len(request.prompt_ids) - 1 : -1]


def expected(model: Policy, request: ScoreRequest) -> torch.Tensor:
    return dense(model, request).gather(-1, torch.tensor(request.response_ids.tolist())[:, None])[:, 0]


def check(model: Policy, requests: list[ScoreRequest], scores: list[TokenScores]) -> None:
    assert len(scores) == len(requests)
    for request, found in zip(requests, scores, strict=True):
        assert len(found.logp) == len(request.response_ids)
        got = torch.tensor(found.logp, dtype=torch.float64)
        torch.testing.assert_close(got, expected(model, request), rtol=0, atol=ATOL)


def test_scores_are_the_log_softmax_of_a_plain_forward_pass(backend: Backend) -> None:
    check(backend.model, REQUESTS, backend.teacher.score(REQUESTS))


def test_scores_come_in_the_order_of_the_requests(backend: Backend) -> None:
    shuffled = [REQUESTS[i % 4] for i in (2, 0, 3, 1, 2, 3, 0, 0, 1)]
    check(backend.model, shuffled, backend.teacher.score(shuffled))


def test_no_requests_are_no_scores(backend: Backend) -> None:
    assert backend.teacher.score([]) == []


def test_the_prompt_decides(backend: Backend) -> None:
    """The same response after two prompts: each score is that of its own prompt, not one remembered."""
    both = [ScoreRequest((20, 21), (30, 31)), ScoreRequest((90, 91), (30, 31))]
    scores = backend.teacher.score(both)
    check(backend.model, both, scores)
    assert abs(scores[0].logp[0] - scores[1].logp[0]) > 100 * ATOL


def test_the_teachers_own_likeliest_ids_come_first_to_last(backend: Backend) -> None:
    requests = [ScoreRequest(r.prompt_ids, r.response_ids, top_k=3) for r in REQUESTS]
    scores = backend.teacher.score(requests)
    check(backend.model, requests, scores)
    for request, found in zip(requests, scores, strict=True):
        best = dense(backend.model, request).topk(3)
        assert found.top_ids is not None and found.top_logp is not None
        assert found.top_ids.tolist() == best.indices.tolist()
        assert found.logp.dtype == found.top_logp.dtype == "float32" and found.top_ids.dtype == "int32"
        torch.testing.assert_close(torch.tensor(found.top_logp).double(), best.values, rtol=0, atol=ATOL)


def test_candidates_get_the_scores_of_their_own_position(backend: Backend) -> None:
    if not backend.candidates:
        pytest.skip("this backend scores no candidates")
    wanted = ((7, 8, 30), (31, 9, 10), (1, 2, 3), (33, 100, 4), (5, 40, 6))
    plain = REQUESTS[1]
    request = ScoreRequest(REQUESTS[0].prompt_ids, REQUESTS[0].response_ids, candidate_ids=wanted)
    found, other = backend.teacher.score([request, plain])
    check(backend.model, [request, plain], [found, other])
    assert other.candidate_logp is None
    assert found.candidate_logp is not None
    by_hand = dense(backend.model, request).gather(-1, torch.tensor(wanted))
    torch.testing.assert_close(torch.tensor(found.candidate_logp).double(), by_hand, rtol=0, atol=ATOL)
