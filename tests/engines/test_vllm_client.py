"""Servers that fail: what is sent again, what is waited for, what is refused, and what a user is told."""

from __future__ import annotations

from typing import Any

import pytest

from engine_backends import PROBE, client, text_model
from vllm_server import VllmServer
from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
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
    with VllmServer(text_model(1)) as one, VllmServer(text_model(1)) as two:
        teacher = ServerTeacher(client(one.url, two.url), PROBE)
        before = [len(one.requests), len(two.requests)]
        check(teacher)
        # Eight requests, and one probe each.
        assert [len(one.requests) - before[0], len(two.requests) - before[1]] == [5, 5]


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
    ],
)
def test_rollouts_that_are_not_what_was_asked_for_are_refused(changes: dict[str, Any], words: str) -> None:
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2, banned=[7])
        server.hook = lambda path, body: sampled(**changes) if path == "/v1/completions" else None
        with pytest.raises(SamplerError, match=words):
            sampler.generate([Prompt((20, 21))], SamplingParams(2))


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


def test_images_do_not_go_to_a_rollout_server() -> None:
    with VllmServer(text_model(1)) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=2)
        with pytest.raises(SamplerError, match="text prompts only"):
            sampler.generate([Prompt((20, 21), {"pixel_values": 1})], SamplingParams(2))


def test_servers_sleep_except_while_they_are_used() -> None:
    with VllmServer(text_model(1)) as server:
        teacher = ServerTeacher(client(server.url, sleep=True), PROBE)
        assert server.asleep
        check(teacher)
        assert server.asleep
        assert [r for r in server.requests if "completions" not in r] == ["/wake_up", "/sleep?level=1"] * 2


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOLD_TEST_KEY", raising=False)
    section = Server(urls=("http://127.0.0.1:1/v1",), model="tiny", key_env="VOLD_TEST_KEY")
    with pytest.raises(ConfigError, match="environment variable"):
        VllmClient(section, role="teacher", error=TeacherError)
