from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from chat_server import ChatServer, chat_client, completion, one_by_one, said
from vold.engines import chat_bodies, http
from vold.engines.chat_api import ATTEMPTS, EndpointReply, EndpointSampler
from vold.engines.chat_bodies import AHEAD, content, fitted_size
from vold.engines.launch.started import STARTED, Started
from vold.errors import ConfigError, DataError, SamplerError
from vold.run.recipe import Endpoint
from vold.types import Message, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

PARAMS = SamplingParams(max_new_tokens=64, temperature=0.6, seed=5)
RED, BLUE = (Image.new("RGB", (6, 4), c) for c in ("red", "blue"))


def sampler(*urls: str, concurrency: int = 4) -> EndpointSampler:
    return chat_client(*urls, model="student", concurrency=concurrency)


def prompts(*texts: str) -> list[tuple[Message, ...]]:
    return [(Message("user", t),) for t in texts]


def ask(endpoint: EndpointSampler, *texts: str) -> list[EndpointReply]:
    """All replies in the order of the prompts."""
    return sorted(one_by_one(endpoint.answer(prompts(*texts), PARAMS, [0] * len(texts))), key=lambda r: r.index)


def picture(part: dict[str, Any]) -> Image.Image:
    head, _, data = part["image_url"]["url"].partition(",")
    assert (part["type"], head) == ("image_url", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def stopped(body: dict[str, Any], by: str | int | None) -> dict[str, Any]:
    """A completion as vLLM says what ended it: a string, the number of a token, or nothing but its end."""
    body["choices"][0]["stop_reason"] = by
    return body


class Failing:
    """Gives the answers of a list one after the other, then a completion."""

    def __init__(self, first: Sequence[Any]) -> None:
        self.left = list(first)

    def __call__(self, body: dict[str, Any]) -> Any:
        return self.left.pop(0) if self.left else completion("fine")


# ---- what is sent


def test_the_request_says_all_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDENT_KEY", "s3cret")
    with ChatServer(lambda body: completion("4", tokens=2)) as server:
        endpoint = EndpointSampler(Endpoint(urls=(server.url,), model="student", key_env="STUDENT_KEY"))
        messages = (Message("system", "Be brief."), Message("user", "2+2?"))
        assert endpoint.chat(messages, PARAMS) == EndpointReply(0, "4", "stop", 2)
        assert server.bodies == [
            {
                "path": "/v1/chat/completions",
                "model": "student",
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}],
                "max_tokens": 64,
                "temperature": 0.6,
                "seed": 5,
            }
        ]
        assert server.headers[0]["authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(vars(endpoint))


def test_no_key_sends_no_header() -> None:
    with ChatServer(lambda body: completion("4")) as server:
        ask(sampler(server.url + "/"), "2+2?")
        assert "authorization" not in server.headers[0]


def test_samples_of_one_prompt_have_seeds_of_their_own() -> None:
    with ChatServer(lambda body: completion(str(body["seed"]))) as server:
        replies = one_by_one(sampler(server.url).answer(prompts("a", "a", "b"), PARAMS, [0, 1, 1]))
        texts = {r.index: r.text for r in replies}
    assert texts == {0: "5", 1: "1000008", 2: "1000008"}


def test_pictures_are_sent_where_their_markers_stand() -> None:
    parts = content(Message("user", "<image>left, <image> right ", (RED, BLUE)))
    assert isinstance(parts, list)
    assert [p["type"] for p in parts] == ["image_url", "text", "image_url", "text"]
    assert [p["text"] for p in parts if p["type"] == "text"] == ["left, ", " right "]
    shown = [picture(p) for p in parts if p["type"] == "image_url"]
    assert [(i.size, i.getpixel((0, 0))) for i in shown] == [((6, 4), (255, 0, 0)), ((6, 4), (0, 0, 255))]


def test_pictures_without_markers_come_first() -> None:
    parts = content(Message("user", "both", (RED, BLUE)))
    assert [p["type"] for p in parts if isinstance(p, dict)] == ["image_url", "image_url", "text"]


def test_another_number_of_markers_than_pictures_is_an_error() -> None:
    with (
        ChatServer(lambda body: completion("4")) as server,
        pytest.raises(DataError, match="2 <image> markers but 1 images"),
    ):
        list(sampler(server.url).answer([(Message("user", "<image> <image>", (RED,)),)], PARAMS, [0]))


def test_pictures_are_scaled_to_the_limits_of_a_protocol() -> None:
    with ChatServer(lambda body: completion("4")) as server:
        messages = [(Message("user", "how many?", (RED,)),)]
        list(sampler(server.url).answer(messages, PARAMS, [0], pixels=[(100 * 784, 400 * 784)]))
        found = picture(server.bodies[0]["messages"][0]["content"][0])
    # 6 x 4 to at least 78,400 pixels: 57.15 times as large is 342.9 x 228.6, up to multiples of 28.
    assert found.size == (364, 252)
    assert found.getpixel((100, 100)) == (255, 0, 0)


@pytest.mark.parametrize("limits", [(1280 * 784, 16384 * 784), (4 * 784, 64 * 784), (1, 10**9)])
def test_scaled_sizes_are_those_of_transformers(limits: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    for width in (28, 37, 100, 224, 1000, 3001):
        for height in (29, 64, 336, 980, 2500):
            wanted = smart_resize(height, width, factor=28, min_pixels=limits[0], max_pixels=limits[1])
            assert fitted_size(width, height, limits) == wanted[::-1], (width, height)


# ---- what comes back


def test_replies_come_as_they_finish() -> None:
    first_may_go = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if said(body) == "slow":
            assert first_may_go.wait(30)
        return completion(said(body).upper())

    with ChatServer(answer) as server:
        replies = one_by_one(sampler(server.url).answer(prompts("slow", "b", "c"), PARAMS, [0, 0, 0]))
        early = {next(replies).text, next(replies).text}
        first_may_go.set()
        late = next(replies)
    assert (early, late) == ({"B", "C"}, EndpointReply(0, "SLOW", "stop", 3))


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (completion("so 4"), "so 4", "stop"),
        (completion("so", finish="length"), "so", "length"),
        (completion("4", reasoning_content="two and two"), "<think>two and two</think>4", "stop"),
        (completion("4", reasoning="two and two"), "<think>two and two</think>4", "stop"),
        (completion(None, reasoning_content="two and"), "<think>two and</think>", "stop"),
        (completion(None, reasoning_content="two a", finish="length"), "<think>two a", "length"),
        (completion("4 i", reasoning_content="two", finish="length"), "<think>two</think>4 i", "length"),
        (completion("<think>two</think>4"), "<think>two</think>4", "stop"),
        (completion(None), "", "stop"),
        (completion("4", finish="eos_token"), "4", "stop"),
        (stopped(completion("4"), 7), "4", "stop"),
        (stopped(completion("4"), None), "4", "stop"),
        (stopped(completion("4"), "end_turn"), "4", "stop"),  # as some gateways call every end
        (stopped(completion(None, reasoning="two"), "stop"), "<think>two</think>", "stop"),
    ],
)
def test_thinking_and_ends(body: dict[str, Any], text: str, finish: str) -> None:
    with ChatServer(lambda _: body) as server:
        (reply,) = ask(sampler(server.url), "2+2?")
    assert (reply.text, reply.finish, reply.tokens, reply.error) == (text, finish, 3, "")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (completion("so \\boxed{4"), "so \\boxed{4}"),
        (completion(None, reasoning="so \\boxed{4"), "<think>so \\boxed{4}"),
        (completion("{4", reasoning="so"), "<think>so</think>{4}"),
    ],
)
def test_the_stop_string_that_ended_an_answer_stays_in_it(body: dict[str, Any], text: str) -> None:
    """As in a model's own text; vLLM leaves it out and names it."""
    with ChatServer(lambda _: stopped(body, "}")) as server:
        (reply,) = one_by_one(sampler(server.url).answer(prompts("2+2?"), replace(PARAMS, stop=("}",)), [0]))
    assert (reply.text, reply.stopped) == (text, "")


def test_half_a_surrogate_pair_in_an_answer_can_be_written_to_a_file() -> None:
    with ChatServer(lambda _: (200, json.dumps(completion("a\ud800b \ud83d\ude00")))) as server:
        assert ask(sampler(server.url), "2+2?")[0].text == "a\ufffdb \U0001f600"


def test_a_reply_without_usage_has_no_token_count() -> None:
    body = completion("4")
    del body["usage"]
    with ChatServer(lambda _: body) as server:
        assert ask(sampler(server.url), "2+2?")[0].tokens == 0


# ---- failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        (500, "boom"),
        (503, '{"error": "loading"}'),
        (429, "slow down"),
        (429, "slow down", {"Retry-After": "0"}),
        (429, "slow down", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        (408, ""),
        None,
        (200, "not json"),
        (200, "[]"),
        (200, '{"choices": []}'),
        (200, '{"choices": [{"message": {"content": ["parts"]}}]}'),
        (200, '{"choices": [{"message": {"content": false}}]}'),
        (200, '{"choices": [{"message": {"role": "assistant"}}]}'),
        (200, '{"choices": [{"message": {"content": "a", "reasoning": 5}}]}'),
        (200, '{"choices": [{"message": {"content": "a"}, "finish_reason": 5}]}'),
        (200, '{"choices": [{"message": {"content": "a"}}], "usage": []}'),
        (200, '{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}'),
        (200, '{"error": "loading"}'),
        completion("fine", tokens=-1),
        completion("fine", tokens=True),
        completion("fine", tokens=10**30),
        completion("half an ans", finish="abort"),
    ],
)
def test_a_passing_failure_is_tried_again(failure: Any) -> None:
    with ChatServer(Failing([failure, failure])) as server:
        assert ask(sampler(server.url), "2+2?") == [EndpointReply(0, "fine", "stop", 3)]
        assert len(server.bodies) == 3
        assert server.bodies[0] == server.bodies[2]


def test_a_server_that_stays_down_is_an_error_that_names_it() -> None:
    with ChatServer(lambda _: (503, '{"error": {"message": "out of memory"}}')) as server:
        with pytest.raises(SamplerError) as caught:
            ask(sampler(server.url), "2+2?")
        assert len(server.bodies) == ATTEMPTS
    assert server.url in caught.value.where
    assert "status 503: out of memory" in caught.value.got
    assert "repeat the command" in caught.value.fix


def test_a_server_that_vold_starts_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all tries at any other; unless it is given up."""
    monkeypatch.setattr(http, "LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(EndpointSampler, "first_wait", 0.01)
    with ChatServer(Failing([(503, "loading")] * 3 * ATTEMPTS)) as server:
        over: list[SamplerError] = []
        monkeypatch.setitem(STARTED, server.url, Started("key", failure=lambda: over[0] if over else None))
        assert ask(sampler(server.url), "2+2?")[0].text == "fine"
        over.append(SamplerError("has ended again and again"))
        server.answer = lambda _: (503, "loading")
        with pytest.raises(SamplerError, match="again and again"):
            ask(sampler(server.url), "2+2?")


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(SamplerError, match=f"{ATTEMPTS} tries, the last: {url}: ConnectError"):
            sampler(url).chat((Message("user", "2+2?"),), PARAMS)


def test_a_retry_goes_to_the_next_server() -> None:
    with (
        ChatServer(lambda _: (500, "ill")) as ill,
        ChatServer(lambda _: completion("fine")) as well,
    ):
        replies = ask(sampler(ill.url, well.url), *"abcd")
        assert [r.text for r in replies] == ["fine"] * 4
        assert 1 <= len(ill.bodies) <= 2  # request 0, and 2 if it goes out before that one has failed
        assert sorted(said(b) for b in well.bodies) == ["a", "b", "c", "d"]


def test_a_round_is_a_try_at_every_server() -> None:
    with ChatServer(lambda _: (500, "ill")) as one, ChatServer(lambda _: (500, "ill")) as two:
        with pytest.raises(SamplerError, match=f"{2 * ATTEMPTS} tries"):
            ask(sampler(one.url, two.url), "2+2?")
        assert [len(one.bodies), len(two.bodies)] == [ATTEMPTS, ATTEMPTS]


# ---- failures that stay


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 451])
def test_a_wrong_key_or_model_ends_it_at_once(status: int) -> None:
    words = '{"object": "error", "message": "The model `student` does not exist."}'
    with ChatServer(lambda _: (status, words)) as server:
        with pytest.raises(SamplerError) as caught:
            ask(sampler(server.url, concurrency=1), "a", "b", "c")
        assert len(server.bodies) == 1
    assert caught.value.got == f"status {status}: The model `student` does not exist."
    assert "/v1" in caught.value.fix


def refuse_long(body: dict[str, Any]) -> Any:
    if "long" in said(body):
        return 400, '{"error": {"message": "maximum context length is 8192 tokens", "code": 400}}'
    return completion("fine")


def test_one_refused_request_does_not_stop_the_others() -> None:
    with ChatServer(refuse_long) as server:
        replies = ask(sampler(server.url), "a", "too long", "c")
    refused = EndpointReply(1, "", "stop", 0, "status 400: maximum context length is 8192 tokens")
    assert replies == [EndpointReply(0, "fine", "stop", 3), refused, EndpointReply(2, "fine", "stop", 3)]


def test_a_server_that_has_answered_is_not_doubted() -> None:
    with ChatServer(refuse_long) as server:
        ask(sampler(server.url, concurrency=1), "a", "too long", "c")
        assert len(server.bodies) == 3


def test_the_only_request_may_be_refused() -> None:
    """After a kill only the bad one may be left: the server is then asked something harmless first."""
    with ChatServer(refuse_long) as server:
        (reply,) = ask(sampler(server.url), "too long")
        assert (reply.error[:10], len(server.bodies)) == ("status 400", 2)


def test_a_server_that_refuses_everything_is_an_error() -> None:
    words = '{"error": "max_tokens is too large"}'
    with ChatServer(lambda _: (400, words)) as server:
        replies = one_by_one(sampler(server.url, concurrency=1).answer(prompts("a", "b"), PARAMS, [0, 0]))
        with pytest.raises(SamplerError, match=r"refuses every request(.|\n)*max_tokens is too large"):
            next(replies)


def test_a_server_that_sees_no_pictures_is_an_error() -> None:
    def blind(body: dict[str, Any]) -> Any:
        seen = isinstance(body["messages"][-1]["content"], list)
        return (400, '{"error": "no images"}') if seen else completion("fine")

    with ChatServer(blind) as server:
        endpoint = sampler(server.url, concurrency=1)
        assert ask(endpoint, "a")[0].text == "fine"
        with pytest.raises(SamplerError, match="refuses every request with a picture"):
            list(endpoint.answer([(Message("user", "what?", (RED,)),)], PARAMS, [0]))


def test_what_is_under_way_is_not_lost_when_one_fails() -> None:
    refused = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if said(body) == "bad":
            refused.set()
            return 401, "no"
        assert refused.wait(30)
        return completion("paid for")

    with ChatServer(answer) as server:
        replies = one_by_one(sampler(server.url, concurrency=2).answer(prompts("good", "bad"), PARAMS, [0, 0]))
        assert next(replies).text == "paid for"
        with pytest.raises(SamplerError, match="status 401: no"):
            next(replies)


def test_a_server_that_dies_loses_nothing() -> None:
    texts = [str(n) for n in range(6)]
    died = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        return None if died.is_set() else completion(f"{said(body)}!")

    have: dict[int, str] = {}
    with ChatServer(answer) as server:
        endpoint = sampler(server.url, concurrency=1)
        with pytest.raises(SamplerError, match="no server answers"):
            for reply in one_by_one(endpoint.answer(prompts(*texts), PARAMS, [0] * 6)):
                have[reply.index] = reply.text
                if len(have) == 2:
                    died.set()
        assert 2 <= len(have) < 6
        died.clear()
        left = [n for n in range(6) if n not in have]
        for reply in one_by_one(endpoint.answer(prompts(*(texts[n] for n in left)), PARAMS, [0] * len(left))):
            have[left[reply.index]] = reply.text
    assert have == {n: f"{n}!" for n in range(6)}


def test_no_more_is_asked_than_the_consumer_can_store() -> None:
    third = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if said(body) == "c":
            third.set()
        return completion("fine")

    with ChatServer(answer) as server:
        replies = one_by_one(sampler(server.url, concurrency=1).answer(prompts(*"abcdefgh"), PARAMS, [0] * 8))
        next(replies)
        assert not third.wait(0.3)
        next(replies)
        assert third.wait(30)
        replies.close()


def test_an_error_does_not_wait_for_retries() -> None:
    busy = threading.Event()

    def answer(body: dict[str, Any]) -> Any:
        if said(body) == "busy":
            busy.set()
            return 503, "wait"
        assert busy.wait(30)
        return 401, "no"

    with ChatServer(answer) as server:
        patient = chat_client(server.url, concurrency=2, first_wait=3600.0)
        with pytest.raises(SamplerError, match="status 401"):
            ask(patient, "busy", "bad")
        assert sorted(said(b) for b in server.bodies) == ["bad", "busy"]


def test_many_prompts_of_few_workers_all_arrive() -> None:
    texts = [str(n) for n in range(100)]
    with ChatServer(lambda body: completion(said(body))) as server:
        assert [r.text for r in ask(sampler(server.url, concurrency=3), *texts)] == texts


def test_nothing_to_ask() -> None:
    assert ask(sampler("http://127.0.0.1:9/v1")) == []


# ---- configuration


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDENT_KEY", "s3cret")
    with ChatServer(lambda body: completion("fine")) as server:
        config = Endpoint(urls=(server.url,), model="student", key_env="STUDENT_KEY", concurrency=3)
        endpoint = EndpointSampler(config)
        endpoint.chat((Message("user", "a"),), PARAMS)
        assert (endpoint.workers(), server.headers[0]["authorization"]) == (3, "Bearer s3cret")
    assert "s3cret" not in config.model_dump_json()


def test_a_missing_key_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDENT_KEY", raising=False)
    with pytest.raises(ConfigError, match="STUDENT_KEY"):
        EndpointSampler(Endpoint(urls=("http://h/v1",), model="m", key_env="STUDENT_KEY"))


def test_pictures_are_written_a_little_ahead_and_once_for_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Image.Image] = []

    def counted(image: Image.Image) -> str:
        seen.append(image)
        return "data:"

    monkeypatch.setattr(chat_bodies, "png_uri", counted)
    asked = [(Message("user", f"picture {n}", (Image.new("RGB", (2, 2)),)),) for n in range(3 * AHEAD)]
    twice = [prompt for prompt in asked for _ in range(2)]
    with contextlib.closing(chat_bodies.Written(twice, [None] * len(twice))) as messages:
        assert messages.take(0) is messages.take(1)
        assert json.loads(messages.take(0) + b"}")["messages"][0]["content"][1]["text"] == "picture 0"
        messages.take(2 * AHEAD)
    assert AHEAD < len(seen) <= 2 * AHEAD + 1
