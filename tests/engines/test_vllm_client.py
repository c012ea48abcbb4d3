"""Servers that fail: what is sent again, what is waited for, what is refused, and what a user is told."""

from __future__ import annotations

import base64
import io
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_backends import PROBE, client, text_model
from vllm_server import Hook, VllmServer
from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.engines.transfer.weights import ServerWeights
from vold.engines.vllm import VllmClient
from vold.errors import AlignmentError, ConfigError, SamplerError, TeacherError
from vold.run.model_sections import Server
from vold.types import Prompt, SamplingParams, ScoreRequest

REQUESTS = [ScoreRequest((20 + i, 21), (30, 31 + i, 2)) for i in range(8)]


def right_answers() -> list[list[float]]:
    scores = InProcessTeacher(text_model(1), temperature=1.0, token_budget=512).score(REQUESTS)
    return [s.logp.tolist() for s in scores]


def check(teacher: ServerTeacher) -> None:
    for got, right in zip(teacher.score(REQUESTS), right_answers(), strict=True):
        assert got.logp == pytest.approx(right, abs=2e-5)


def test_requests_are_spread_over_all_servers() -> None:
    all_there, asked = threading.Barrier(len(REQUESTS)), list[int]()

    def count(server: int) -> Hook:
        def hold(_path: str, body: dict[str, Any]) -> None:
            if len(body.get("prompt", [])) == 5:  # one of the eight, and no probe
                asked.append(server)
                all_there.wait(30)  # no reply before the last request: the next one goes by what is under way

        return hold

    with VllmServer(text_model(1)) as one, VllmServer(text_model(1)) as two:
        teacher = ServerTeacher(client(one.url, two.url), PROBE)
        one.hook, two.hook = count(0), count(1)
        check(teacher)
    assert sorted(asked) == [0] * 4 + [1] * 4


def test_the_others_take_over_from_a_server_that_dies() -> None:
    said: list[str] = []
    with VllmServer(text_model(1)) as one, VllmServer(text_model(1)) as two:
        teacher = ServerTeacher(client(one.url, two.url, report=said.append), PROBE)
        two.kill()
        check(teacher)
    assert [s for s in said if "going on with the others" in s]
    assert not [s for s in said if "waiting" in s]


@pytest.mark.parametrize("failure", ["refuses connections", "hangs up", "status 500", "status 503", "no JSON"])
def test_a_server_that_fails_for_a_while_is_waited_for(failure: str) -> None:
    """The server mends itself when the client says that it waits: no clock decides."""
    said: list[str] = []
    with VllmServer(text_model(1)) as server:

        def report(words: str) -> None:
            said.append(words)
            if "waiting" in words:
                if failure == "refuses connections":
                    server.start()
                server.hang_up = False
                server.hook = lambda path, body: None

        teacher = ServerTeacher(client(server.url, report=report, concurrency=1), PROBE)
        if failure == "refuses connections":
            server.kill()
        elif failure == "hangs up":
            server.hang_up = True
        elif failure == "no JSON":
            server.hook = lambda path, body: (200, "cut short")
        else:
            status = int(failure.split()[1])
            server.hook = lambda path, body: (status, {"error": {"message": "EngineDeadError"}})
        check(teacher)
    assert len([s for s in said if "no teacher server answers, waiting" in s]) == 1
    assert len([s for s in said if "answers again" in s]) == 1


def test_patience_has_an_end_that_says_what_happened() -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url, patience=0.05), PROBE)
        server.kill()
        with pytest.raises(TeacherError) as caught:
            teacher.score(REQUESTS)
    assert "no teacher server answers" in str(caught.value)
    assert server.url in str(caught.value)
    assert "ConnectError" in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_request_that_will_never_be_served_is_not_sent_again(status: int) -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url, concurrency=1), PROBE)
        server.hook = lambda path, body: (status, {"error": {"message": "no such thing"}})
        before = len(server.requests)
        with pytest.raises(TeacherError, match="no such thing"):
            teacher.score(REQUESTS)
        assert len(server.requests) == before + 1


def test_a_teacher_without_weights_is_caught_at_the_start() -> None:
    zeroed = text_model(1)
    for parameter in zeroed.model.parameters():
        parameter.data.zero_()
    with VllmServer(zeroed) as server, pytest.raises(TeacherError, match="same log-prob"):
        ServerTeacher(client(server.url), PROBE)


def test_two_servers_with_different_models_are_caught_at_the_start() -> None:
    other = pytest.raises(TeacherError, match="not the teacher the run began with")
    with VllmServer(text_model(1)) as one, VllmServer(text_model(2)) as two, other:
        ServerTeacher(client(one.url, two.url), PROBE)


def test_a_server_that_comes_back_with_another_model_is_caught_before_its_scores_are_used() -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE)
        check(teacher)
        server.policy = text_model(2)
        with pytest.raises(TeacherError, match="not the teacher the run began with"):
            teacher.score(REQUESTS)


def test_a_server_of_another_name_says_what_it_holds() -> None:
    with VllmServer(text_model(1), name="qwen3-8b") as server:
        with pytest.raises(TeacherError, match="holds another model") as caught:
            client(server.url).context()
        assert "qwen3-8b" in str(caught.value)


def rewritten(change: str) -> Any:
    """An answer as a gateway might mend it: `change` says what it does to the ids or scores."""
    ids = [20, 21, 30, 31, 2]
    rows: list[Any] = [None, *({str(i): {"logprob": -1.0 - 0.1 * t, "rank": 1}} for t, i in enumerate(ids[1:]))]
    choice: dict[str, Any] = {"prompt_logprobs": rows, "prompt_token_ids": ids}
    if change == "echo":
        choice["prompt_token_ids"] = [20, 21, 30, 99, 2]
    elif change == "length":
        choice["prompt_logprobs"] = rows[:-1]
    elif change == "other id":
        rows[3] = {"99": {"logprob": -1.0, "rank": 1}}
    elif change == "begin token":
        choice = {"prompt_logprobs": [None, *rows], "prompt_token_ids": [1, *ids]}
    elif change == "no scores":
        choice["prompt_logprobs"] = None
    return choice


@pytest.mark.parametrize("change", ["echo", "length", "other id", "begin token", "no scores"])
def test_scores_of_other_tokens_than_were_sent_are_refused(change: str) -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE)
        server.hook = lambda path, body: (200, {"choices": [rewritten(change)]})
        with pytest.raises(AlignmentError):
            teacher.score(REQUESTS[:1])


def scored(*entries: Any) -> Any:
    """An answer to the first request, whose last tokens have these entries."""
    choice = rewritten("")
    for place, entry in zip(range(-len(entries), 0), entries, strict=True):
        choice["prompt_logprobs"][place] = entry
    return choice


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"logprob": None}, "no numbers: None"),
        ({"logprob": True}, "no numbers: True"),
        ({"logprob": "-1"}, "no numbers: '-1'"),
        ({"logprob": float("nan")}, "no log-probs: nan"),
        ({"logprob": float("inf")}, "no log-probs: inf"),
        ({"logprob": float("-inf")}, "no log-probs: -inf"),
        ({"logprob": 0.5}, "no log-probs: 0.5"),
        ({"logprob": 10**400}, "no log-probs: 1000"),
        ({"logprob": -10000.0}, "no log-probs: -10000.0"),
        ({}, "leaves out the logprob"),
        (None, "leaves out the logprob"),
        (-1.0, "leaves out the logprob"),
    ],
)
def test_numbers_that_are_no_log_probs_reach_no_caller_and_no_file(entry: Any, words: str, tmp_path: Path) -> None:
    with VllmServer(text_model(1)) as server:
        teacher = CachedTeacher(ServerTeacher(client(server.url), PROBE), tmp_path, "tiny")
        server.hook = lambda path, body: (200, {"choices": [scored({"2": entry})]})
        with pytest.raises(TeacherError, match=words) as caught:
            teacher.score(REQUESTS[:1])
        assert caught.value.where == server.url
        assert not list(tmp_path.rglob("*.safetensors"))
        server.hook = lambda path, body: None
        assert teacher.score(REQUESTS[:1])[0].logp == pytest.approx(right_answers()[0], abs=2e-5)


def ranked(*values: float, sent: tuple[int, float] | None = None) -> dict[str, Any]:
    """Log-probs of ranks 1, 2 .., of ids 2, 40, 41 ..; `sent` is the rank and log-prob of id 2 where it is lower."""
    ids = [40, 41, 42] if sent else [2, 40, 41]
    row = {str(i): {"logprob": v, "rank": r} for r, (i, v) in enumerate(zip(ids, values, strict=False), 1)}
    return row | ({"2": {"logprob": sent[1], "rank": sent[0]}} if sent else {})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ranked(-1.0), "leaves out some of its likeliest"),
        (ranked(-1.0, sent=(7, -3.0)), "leaves out some of its likeliest"),
        (ranked(-2.0, -1.0), "do not fall with the rank"),
        (ranked(-1.0, -1.2, sent=(7, -1.1)), "do not fall with the rank"),
        (ranked(-0.1, -0.2), "chances of 1.72 in sum"),
        (ranked(-0.4, -1.2, sent=(3, -1.3)), "chances of 1.24 in sum"),
        ({"2": {"logprob": -1.0, "rank": 0}, "40": {"logprob": -1.5, "rank": 1}}, "other ranks than 1 to 2"),
        ({"2": {"logprob": -1.0, "rank": 1}, "40": {"logprob": -1.5, "rank": True}}, "no whole numbers: True"),
        ({"2": {"logprob": -1.0, "rank": 1}, "40": {"logprob": -1.5, "rank": None}}, "no whole numbers: None"),
        ({"2": {"logprob": -1.0, "rank": 1}, "112": {"logprob": -1.5, "rank": 2}}, "outside 0 to 111: 112"),
        ({"2": {"logprob": -1.0, "rank": 1}, "-40": {"logprob": -1.5, "rank": 2}}, "outside 0 to 111: -1"),
        ({"2": {"logprob": -1.0, "rank": 1}, "": {"logprob": -1.5, "rank": 2}}, "outside 0 to 111: -1"),
        ({"2": {"logprob": -1.0, "rank": 1}, "02": {"logprob": -1.5, "rank": 2}}, "outside 0 to 111: -1"),
        ({"2": {"logprob": -1.0, "rank": 1}, "4\u0660": {"logprob": -1.5, "rank": 2}}, "outside 0 to 111: -1"),
        ({"2": {"logprob": -1.0, "rank": 1}, "40": {"logprob": "-1.5", "rank": 2}}, "no numbers: '-1.5'"),
        ({"2": {"logprob": -1.0, "rank": 1}, "40": 5}, "leaves out the rank"),
    ],
)
def test_likeliest_tokens_that_cannot_be_are_refused(row: dict[str, Any], words: str) -> None:
    (request,) = (ScoreRequest((20, 21, 30, 31), (2,), top_k=2),)
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE, 112)

        def answer(found: dict[str, Any]) -> Any:
            return lambda path, body: None if body["prompt"][0] != 20 or body["prompt_logprobs"] == 0 else (
                200, {"choices": [scored(found)]}
            )  # fmt: skip

        server.hook = answer(ranked(-1.0, -1.2, sent=(7, -3.0)))
        (fine,) = teacher.score([request])
        assert fine.top_ids is not None and fine.top_ids.tolist() == [[40, 41]]
        assert fine.logp.tolist() == [-3.0]
        server.hook = answer(row)
        with pytest.raises(TeacherError, match=words):
            teacher.score([request])


def test_one_log_prob_for_all_tokens_of_a_response_is_no_answer() -> None:
    request = ScoreRequest((20, 21), tuple(range(30, 38)))

    def answer(logps: list[float]) -> Any:
        ids = [*request.prompt_ids, *request.response_ids.tolist()]
        rows = [
            None,
            {"21": {"logprob": -1.0}},
            *({str(i): {"logprob": v}} for i, v in zip(ids[2:], logps, strict=True)),
        ]
        choice = {"prompt_logprobs": rows, "prompt_token_ids": ids}
        return lambda path, body: (200, {"choices": [choice]}) if body["prompt"] == ids else None

    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE)
        server.hook = answer([-3.0] * 7 + [-3.1])
        assert teacher.score([request])[0].logp[-1] == pytest.approx(-3.1)
        server.hook = answer([-9999.0] * 8)
        assert teacher.score([request])[0].logp.tolist() == [float("-inf")] * 8
        for value in (-3.0, 0.0):
            server.hook = answer([value] * 8)
            with pytest.raises(TeacherError, match="every token the same log-prob"):
                teacher.score([request])


CANDIDATES = ScoreRequest((20, 21), (30, 31, 2), candidate_ids=((30, 40), (41, 42), (2, 44)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: np.where(v == v.max(), np.nan, v), "candidate_logp nan"),
        (lambda v: v * 0 + 0.5, "candidate_logp 0.5"),
        (lambda v: v * 0 - 0.1, "another log-prob among candidates than alone"),
        (lambda v: np.stack([v[:, 0], v[:, 0] * 0], 1), "chances of 1"),
        (lambda v: v - 2, "another log-prob among candidates than alone"),
        (lambda v: v[:-1], "do not line up"),
        (lambda v: v.T, "do not line up"),
        (lambda v: v.astype(np.int32), "do not line up"),
        (lambda v: v.astype(object), "sends no scores of candidates"),
    ],
)
def test_scores_of_candidates_that_cannot_be_are_refused(change: Any, words: str) -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE)
        (right,) = teacher.score([CANDIDATES])
        buffer = io.BytesIO()
        np.save(buffer, change(right.candidate_logp), allow_pickle=True)
        reply = {"prompt_token_id_logprobs": base64.b64encode(buffer.getvalue()).decode()}
        server.hook = lambda path, body: (200, reply) if path == "/inference/v1/generate" else None
        with pytest.raises(TeacherError, match=words):
            teacher.score([CANDIDATES])


def test_minus_infinity_survives_the_way_through_json() -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url), PROBE)
        choice = rewritten("")
        choice["prompt_logprobs"][3]["31"]["logprob"] = -9999.0

        def answer(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            return (200, {"choices": [choice]}) if body.get("prompt") == [20, 21, 30, 31, 2] else None

        server.hook = answer
        (scores,) = teacher.score(REQUESTS[:1])
    assert scores.logp == pytest.approx((-1.1, float("-inf"), -1.3))


def sampled(**changes: Any) -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "token_ids": [30, 31], "logprobs": {"token_logprobs": [-1.0, -2.0]}, **changes}
    return 200, {"choices": [choice]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_ids": [30, 7]}, "ruled out"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "line up"),
        ({"logprobs": {"token_logprobs": [-1.0, None]}}, "line up"),
        ({"logprobs": {"token_logprobs": [-1.0, 0.5]}}, "line up"),
        ({"logprobs": None}, "leaves out"),
        ({"token_ids": [30], "logprobs": {"token_logprobs": [-1.0]}}, "cut a response short"),
        ({"prompt_token_ids": [5]}, "another prompt"),
        ({"prompt_token_ids": 5}, "names no prompt"),
        ({"token_ids": [True, 31]}, "no whole numbers: True"),
        ({"token_ids": [30.0, 31]}, "no whole numbers: 30.0"),
        ({"token_ids": ["30", "31"]}, "no whole numbers: '30'"),
        ({"token_ids": [30, 112]}, "outside 0 to 111: 112"),
        ({"token_ids": [-1, 31]}, "outside 0 to 111: -1"),
        ({"token_ids": None}, "leaves out"),
        ({"token_ids": 5}, "int in place of a list of ids"),
        ({"token_ids": [2, 31]}, "goes on after the end token"),
        ({"token_ids": [30, 31, 32], "logprobs": {"token_logprobs": [-1.0] * 3}}, "ends as it should not"),
        ({"finish_reason": "stop"}, "ends as it should not"),
        ({"finish_reason": 5}, "ends as it should not"),
        ({"token_ids": [30, 2], "finish_reason": "tool_calls"}, "ends as it should not"),
        ({"logprobs": {"token_logprobs": [-1.0, -9999.0]}}, "no log-probs: -9999.0"),
        ({"logprobs": {"token_logprobs": [-1.0, float("nan")]}}, "no log-probs: nan"),
        ({"logprobs": {"token_logprobs": [-1.0, float("-inf")]}}, "no log-probs: -inf"),
        ({"logprobs": {"token_logprobs": [-1.0, -(10**400)]}}, "no log-probs: -1000"),
        ({"logprobs": {"token_logprobs": [-1.0, False]}}, "no numbers: False"),
        ({"logprobs": {"token_logprobs": [-1.0, "-1"]}}, "no numbers: '-1'"),
        ({"logprobs": {"token_logprobs": "-1"}}, "str in place of a list"),
        ({"index": 1}, "another number of responses"),
        ({"index": True}, "another number of responses"),
    ],
)
def test_rollouts_that_are_not_what_was_asked_for_are_refused(changes: dict[str, Any], words: str) -> None:
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2, rows=112, banned=[7])
        server.hook = lambda path, body: sampled(**changes) if path == "/v1/completions" else None
        with pytest.raises(SamplerError, match=words) as caught:
            sampler.generate([Prompt((20, 21))], SamplingParams(2))
    assert caught.value.where == server.url


class Gateway:
    """In front of a server: one of a prompt's answers, the second to be asked for, has a fault on its way."""

    def __init__(self, fault: str, others: int) -> None:
        self.fault, self.asked, self.lock = fault, 0, threading.Lock()
        self.others, self.all_others_asked = others, threading.Event()

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path != "/v1/completions":
            return None
        with self.lock:
            self.asked += 1
            second, last = self.asked == 2, self.asked == self.others + 1
        if last:
            self.all_others_asked.set()
        if not second:
            return None
        if self.fault == "late":
            assert self.all_others_asked.wait(60)
        return {"busy": (503, {"message": "upstream"}), "cut short": (200, '{"choices": [{"index": 0, "tok')}.get(
            self.fault
        )


@pytest.mark.parametrize("fault", ["busy", "cut short", "late"])
def test_an_answer_that_is_lost_or_late_on_its_way_is_the_same_and_the_others_too(fault: str) -> None:
    policy = text_model(4)
    prompts, params = [Prompt((20, 21)), Prompt((33,))], SamplingParams(12, 1.0, seed=5)
    with VllmServer(policy) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=policy.chat.end_id)
        expected = sampler.generate(prompts, params, 3)
        server.hook, whole = Gateway(fault, 5), list[int]()
        made = sampler.stream(prompts, params, 3, lambda place, group: whole.append(place))
    assert sorted(whole) == [0, 1]
    assert [[c.ids.tolist() for c in g] for g in made] == [[c.ids.tolist() for c in g] for g in expected]


def test_a_reply_that_comes_twice_is_no_second_answer() -> None:
    """As from a gateway that keeps replies: an answer would stand twice, and another be lost."""
    first = sampled()[1] | {"id": "cmpl-17"}
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2, rows=112)
        server.hook = lambda path, body: (200, first) if path == "/v1/completions" else None
        assert len(sampler.generate([Prompt((20, 21))], SamplingParams(2))[0]) == 1
        with pytest.raises(SamplerError, match="two requests with one reply") as caught:
            sampler.generate([Prompt((20, 21))], SamplingParams(2), 2)
    assert "cmpl-17" in caught.value.got


@pytest.mark.parametrize(
    ("chances", "kept"),
    [
        ([0.6, 0.4, 0.0], [30, 31]),
        ([0.5, 0.3, 0.2], [30, 31, 32]),
        ([0.5, 0.3, 0.1], None),  # log-probs of the whole distribution
        ([0.7, 0.4, 0.0], None),
    ],
)
def test_rollouts_whose_kept_ids_are_not_known_are_refused(chances: list[float], kept: list[int] | None) -> None:
    """What a server has sampled from is 1 in sum; an id with vLLM's word for minus infinity was not kept."""
    values = [math.log(p) if p else -9999.0 for p in chances]
    top = {f"token_id:{30 + i}": v for i, v in enumerate(values)}
    logprobs = {"token_logprobs": values[:2], "top_logprobs": [top, top]}
    asked: list[dict[str, Any]] = []

    def hook(path: str, body: dict[str, Any]) -> Any:
        asked.append(body)
        return sampled(logprobs=logprobs) if path == "/v1/completions" else None

    with VllmServer(text_model(1)) as server:
        server.hook = hook
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2, rows=112)
        params = SamplingParams(2, top_p=0.9, kept=3)
        if kept is None:
            with pytest.raises(SamplerError, match=r"cannot be known which ids|chances above 1 in sum"):
                sampler.generate([Prompt((20, 21))], params)
            return
        ((c,),) = sampler.generate([Prompt((20, 21))], params)
    assert c.support_ids is not None and c.support_ids.tolist() == [kept, kept]
    body = next(b for b in asked if "max_tokens" in b)
    assert (body["top_p"], body["top_k"], body["min_p"], body["logprobs"]) == (0.9, 3, 0.0, 3)


TOPS = [{"token_id:30": -1.0, "token_id:40": -1.5}, {"token_id:31": -2.0, "token_id:40": -0.5, "token_id:41": -1.5}]


@pytest.mark.parametrize(
    ("place", "top", "words"),
    [
        (0, {"token_id:30": -1.0}, "1 ids where 2 were due"),
        (0, {"token_id:40": -1.0, "token_id:41": -1.0}, "beside id 30"),
        (0, {"token_id:30": -1.5, "token_id:40": -1.5}, "of log-prob -1.0"),
        (0, {"token_id:30": -1.0, "token_id:40": -0.1}, "chances above 1"),
        (0, {"token_id:30": -1.0, "token_id:40": None}, "no numbers: None"),
        (0, {"token_id:30": -1.0, "token_id:112": -1.5}, "outside 0 to 111: 112"),
        (0, {"token_id:30": -1.0, "token_id:-4": -1.5}, "outside 0 to 111: -1"),
        (0, {"token_id:30": -1.0, " the": -1.5}, "outside 0 to 111: -1"),
        (0, {"token_id:30": -1.0, "40": -1.5}, "outside 0 to 111: -1"),
        (0, {"token_id:30": -1.0, "token_id:030": -1.5}, "outside 0 to 111: -1"),
        (0, {"token_id:30": -1.0, "token_id:" + "9" * 5000: -1.5}, "outside 0 to 111: -1"),
        (1, None, "leaves out the likeliest ids"),
    ],
)
def test_likeliest_ids_of_rollouts_that_cannot_be_are_refused(place: int, top: Any, words: str) -> None:
    tops: list[Any] = list(TOPS)
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2, rows=112)
        logprobs = {"token_logprobs": [-1.0, -2.0], "top_logprobs": tops}
        server.hook = lambda path, body: sampled(logprobs=logprobs) if path == "/v1/completions" else None
        params = SamplingParams(2, candidates=2)
        ((completion,),) = sampler.generate([Prompt((20, 21))], params)
        assert completion.candidate_ids is not None
        assert completion.candidate_ids.tolist() == [[30, 40], [40, 41]]
        tops[place] = top
        with pytest.raises(SamplerError, match=words):
            sampler.generate([Prompt((20, 21))], params)


def test_a_server_that_never_has_the_weights_it_is_given_is_refused(tmp_path: Path) -> None:
    policy = text_model(3)
    with VllmServer(text_model(1)) as server:
        servers = client(server.url, role="rollout")
        weights = ServerWeights(servers, policy, tmp_path)
        sampler = ServerSampler(servers, end_id=2, rows=policy.rows, weights=weights)
        server.hook = lambda path, body: (200, {"weight_version": "other"}) if path == "/weight_info" else None
        with pytest.raises(SamplerError, match="does not keep the version"):
            sampler.generate([Prompt((20, 21))], SamplingParams(2))


@pytest.mark.parametrize("length", [True, "128", 128.0, -5, 10**30])
def test_a_context_that_is_no_number_of_tokens_is_refused(length: Any) -> None:
    with VllmServer(text_model(1)) as server:
        server.hook = lambda path, body: (200, {"data": [{"id": "tiny", "max_model_len": length}]})
        with pytest.raises(TeacherError, match="says no number of tokens"):
            client(server.url).context()
        server.hook = lambda path, body: (200, {"data": [None, {"id": "tiny"}]})
        assert client(server.url).context() == 0


def test_rollouts_ask_for_the_plain_distribution_and_the_right_end() -> None:
    seen: list[dict[str, Any]] = []
    with VllmServer(text_model(1)) as server:

        def look(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            seen.append(body)
            return sampled()

        server.hook = look
        ServerSampler(client(server.url, role="rollout"), end_id=2, banned=[7, 9]).generate(
            [Prompt((20, 21))], SamplingParams(2, 0.7, seed=2**62 + 5)
        )
    (body,) = seen
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.7, 1.0, 0, 0.0)
    assert body["repetition_penalty"] == 1.0
    assert (body["stop_token_ids"], body["ignore_eos"]) == ([2], True)
    assert body["logit_bias"] == {"7": -100.0, "9": -100.0}
    assert 0 <= body["seed"] < 2**63


def test_image_tensors_alone_do_not_go_to_a_rollout_server() -> None:
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2)
        with pytest.raises(SamplerError, match="as tensors alone"):
            sampler.generate([Prompt((20, 21), {"pixel_values": 1})], SamplingParams(2))


def test_servers_sleep_except_while_they_are_used() -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url, sleep=True), PROBE)
        assert server.asleep
        check(teacher)
        assert server.asleep
        assert [r for r in server.requests if "completions" not in r] == ["/wake_up", "/sleep?level=1"] * 2


def test_inside_a_block_that_has_woken_them_servers_are_left_awake() -> None:
    with VllmServer(text_model(1)) as server:
        servers = client(server.url, sleep=True)
        server.asleep, brought = {"weights", "kv_cache"}, []
        with servers.awake(lambda: brought.append(list(server.asleep))), servers.awake():
            assert not server.asleep
        assert brought == [["kv_cache"]]
        assert server.requests == ["/wake_up?tags=weights", "/wake_up?tags=kv_cache", "/sleep?level=2"]


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLD_TEST_KEY", raising=False)
    section = Server(urls=("http://127.0.0.1:1/v1",), model="tiny", key_env="VOLD_TEST_KEY")
    with pytest.raises(ConfigError, match="environment variable"):
        VllmClient(section, role="teacher", error=TeacherError)
