"""Which server a request goes to, and how many it has at a time."""

from __future__ import annotations

import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chat_server import ChatServer, chat_client, completion, one_by_one, said
from engine_backends import client, text_model
from vllm_server import VllmServer
from vold.engines.chat_api import ATTEMPTS
from vold.engines.deadline import Stop
from vold.engines.places import Connections, Places, allow_connections
from vold.engines.samplers.server import ServerSampler
from vold.types import Message, Prompt, SamplingParams

PARAMS = SamplingParams(16)
ONE, TWO = "http://one/v1", "http://two/v1"


def test_the_least_busy_is_taken_and_the_first_of_equals() -> None:
    places, stop = Places(4), Stop()
    assert [places.take((ONE, TWO), 1, stop) for _ in range(3)] == [ONE, TWO, ONE]
    assert places.take((TWO, ONE), 1, stop) == TWO
    places.give_back(ONE, 1, failed=False)
    places.give_back(ONE, 1, failed=False)
    assert [places.take((TWO, ONE), 1, stop) for _ in range(3)] == [ONE, ONE, TWO]


def test_a_server_that_has_failed_is_asked_last_until_it_answers() -> None:
    places, stop = Places(2), Stop()
    places.give_back(places.take((ONE,), 1, stop), 1, failed=True)
    assert [places.take((ONE, TWO), 1, stop) for _ in range(3)] == [TWO, TWO, ONE]
    places.give_back(ONE, 1, failed=False)
    assert places.take((ONE, TWO), 1, stop) == ONE


def test_a_full_server_is_waited_for() -> None:
    places, got = Places(1), list[str]()
    places.take((ONE,), 1, Stop())
    waiting = threading.Thread(target=lambda: got.append(places.take((ONE,), 1, Stop())))
    waiting.start()
    assert not got
    places.give_back(ONE, 1, failed=False)
    waiting.join(30)
    assert got == [ONE]


def test_a_request_for_several_answers_counts_them_all_and_one_that_is_too_large_goes_alone() -> None:
    places, stop = Places(4), Stop()
    assert [places.take((ONE, TWO), 3, stop) for _ in range(2)] == [ONE, TWO]
    assert places.take((ONE, TWO), 1, stop) == ONE
    places.give_back(TWO, 3, failed=False)
    assert places.take((ONE, TWO), 9, stop) == TWO
    stop.set()
    assert places.take((ONE, TWO), 1, stop) == ONE  # 4 against 9: nobody waits any more


def test_a_connection_is_lent_to_one_at_a_time_and_used_again() -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(object())
        return made[-1]

    connections = Connections(make)
    with connections.lent(ONE) as first, connections.lent(ONE) as second, connections.lent(TWO) as other:
        assert len({id(first), id(second), id(other)}) == 3
    with connections.lent(ONE) as again:
        assert again in (first, second)
    assert len(made) == 3


@pytest.fixture
def _few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(600, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_may_be_as_many_connections_as_requests(_few_files: None) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    allow_connections(1024)
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert raised == (1536 if hard == resource.RLIM_INFINITY else min(1536, hard))
    allow_connections(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised


class Counting:
    """A server that holds requests until `open`, and knows the most that it held."""

    def __init__(self, expected: int) -> None:
        self.now = self.most = 0
        self.expected, self.open, self.lock = expected, threading.Event(), threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Any:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == self.expected:
                self.open.set()
        there = self.open.wait(30)
        with self.lock:
            self.now -= 1
        return completion(said(body)) if there else (401, "the places were not filled")


def test_every_server_is_filled_and_none_beyond_its_places() -> None:
    held = Counting(3), Counting(3)
    with ChatServer(held[0]) as one, ChatServer(held[1]) as two:
        prompts = [(Message("user", str(n)),) for n in range(20)]
        asked = chat_client(one.url, two.url, concurrency=3)
        replies = list(one_by_one(asked.answer(prompts, PARAMS, [0] * 20)))
    assert {r.index: r.text for r in replies} == {n: str(n) for n in range(20)}
    assert [h.most for h in held] == [3, 3]


def test_a_request_for_several_answers_takes_so_many_places() -> None:
    """Eight places, four answers each: two requests at a time."""
    held = Counting(2)
    with ChatServer(held) as server:
        client(server.url, concurrency=8).post("/chat/completions", [{"messages": [{"content": "a"}]}] * 6, answers=4)
    assert held.most == 2


def test_a_server_that_has_too_much_to_do_but_answers_others_is_not_given_up() -> None:
    """One request is told to come later more often than a silent server would be asked, while another is answered."""
    told = [0]

    def answer(body: dict[str, Any]) -> Any:
        if said(body) == "late" and told[0] < 3 * ATTEMPTS:
            told[0] += 1
            asked.chat((Message("user", "other"),), PARAMS)  # answered before this one is refused
            return 429, "too many requests"
        return completion("fine")

    with ChatServer(answer) as server:
        asked = chat_client(server.url, concurrency=4)
        assert asked.chat((Message("user", "late"),), PARAMS).text == "fine"
    assert told == [3 * ATTEMPTS]


class Filled:
    """Two servers whose requests end one by one, each only when neither has a place left; so it is but for the tail,
    which begins when the last request has come.

    Args:
        places: of every server.
        requests: that are to come.
        answers: of each, a place each.
        reply: to all.
    """

    def __init__(self, places: int, requests: int, answers: int, reply: Any) -> None:
        self.places, self.left, self.answers, self.reply = places, requests, answers, reply
        self.busy, self.most, self.changed, self.ended = Counter[str](), Counter[str](), threading.Condition(), 0

    def hook(self, name: str) -> Callable[[str, dict[str, Any]], Any]:
        """Of one of the servers."""

        def hook(path: str, body: dict[str, Any]) -> Any:
            if path != "/v1/completions":
                return None
            assert body["n"] == self.answers
            with self.changed:
                self.left, self.busy[name] = self.left - 1, self.busy[name] + self.answers
                self.most[name] = max(self.most[name], self.busy[name])
                self.changed.notify_all()
                full = self.changed.wait_for(
                    lambda: not self.left or [*self.busy.values()] == [self.places] * 2, timeout=60
                )
                self.ended += bool(self.left)
                self.busy[name] -= self.answers
                choices = [{**self.reply, "index": i, "prompt_token_ids": body["prompt"]} for i in range(self.answers)]
                return (200, {"choices": choices}) if full else (400, {"error": {"message": "places are left"}})

        return hook


def test_two_servers_have_no_place_left_but_for_the_tail_of_512_prompts_of_4_rollouts() -> None:
    """256 places each. Places that become free are taken by a further request before another one ends, or the requests
    that wait for that are refused; 128 are under way when the last of 512 comes, so that 384 ended before the tail."""
    policy = text_model(4)
    end = policy.chat.end_id
    said = {"token_ids": [end], "logprobs": {"token_logprobs": [-0.5], "top_logprobs": None}, "finish_reason": "stop"}
    filled = Filled(256, 512, 4, said | {"stop_reason": None})
    with VllmServer(policy) as one, VllmServer(policy) as two:
        one.hook, two.hook = filled.hook("one"), filled.hook("two")
        sampler = ServerSampler(client(one.url, two.url, role="rollout", concurrency=256, patience=120), end_id=end)
        whole = list[int]()
        prompts = [Prompt((20 + i % 9, 21)) for i in range(512)]
        made = sampler.stream(prompts, SamplingParams(8), 4, lambda place, completions: whole.append(place))
    assert sorted(whole) == list(range(512)) and {len(group) for group in made} == {4}
    assert filled.most == {"one": 256, "two": 256}
    assert filled.ended >= 512 - 2 * 64
