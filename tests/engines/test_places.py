"""Which server a request goes to, and how many it has at a time."""

from __future__ import annotations

import json
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
from vold.engines.places import Connections, Groups, Places, allow_connections
from vold.engines.samplers.server import ServerSampler
from vold.model.parallel import Processes
from vold.types import Message, Prompt, SamplingParams

PARAMS = SamplingParams(16)
ONE, TWO = "http://one/v1", "http://two/v1"


def test_the_least_busy_is_taken_and_the_first_of_equals() -> None:
    places, stop = Places(4), Stop()
    assert [places.take((ONE, TWO), stop) for _ in range(3)] == [ONE, TWO, ONE]
    assert places.take((TWO, ONE), stop) == TWO
    places.give_back(ONE, failed=False)
    places.give_back(ONE, failed=False)
    assert [places.take((TWO, ONE), stop) for _ in range(3)] == [ONE, ONE, TWO]


def test_a_server_that_has_failed_is_asked_last_until_it_answers() -> None:
    places, stop = Places(2), Stop()
    places.give_back(places.take((ONE,), stop), failed=True)
    assert [places.take((ONE, TWO), stop) for _ in range(3)] == [TWO, TWO, ONE]
    places.give_back(ONE, failed=False)
    assert places.take((ONE, TWO), stop) == ONE


def test_processes_that_train_together_share_the_places_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with VllmServer(text_model(1)) as server:
        for world, each in ((1, 32), (3, 10), (64, 1)):
            monkeypatch.setattr("vold.engines.vllm.processes", lambda world=world: Processes(rank=0, world=world))
            assert client(server.url, concurrency=32).places.each == each


def test_a_full_server_is_waited_for() -> None:
    places, got = Places(1), list[str]()
    places.take((ONE,), Stop())
    waiting = threading.Thread(target=lambda: got.append(places.take((ONE,), Stop())))
    waiting.start()
    assert not got
    places.give_back(ONE, failed=False)
    waiting.join(30)
    assert got == [ONE]


def test_a_server_gets_the_rest_of_its_group_before_another_and_nobody_else_does() -> None:
    stop = Stop()
    groups = Groups(Places(2), [{"p": 0}, {"p": 1}, {"p": 2}], [[{"s": 3 * g + i} for i in range(3)] for g in range(3)])
    began = [groups.take(bases, stop) for bases in ((ONE, TWO), (ONE, TWO), (ONE,), (TWO,))]
    assert [(base, group, number) for base, group, number, _ in began] == [
        (ONE, 0, 0),
        (TWO, 1, 3),
        (ONE, 0, 1),
        (TWO, 1, 4),
    ]
    assert [json.loads(b"".join(body)) for *_, body in began] == [{"p": g, "s": n} for _, g, n, _ in began]
    for base in (TWO, ONE, TWO, ONE):  # a place of each becomes free
        groups.places.give_back(base, failed=False)
    assert [groups.take((ONE, TWO), stop)[:3] for _ in range(3)] == [(ONE, 0, 2), (TWO, 1, 5), (ONE, 2, 6)]
    groups.places.give_back(ONE, failed=False)
    assert groups.take((TWO, ONE), stop)[:3] == (ONE, 2, 7)


def test_the_rest_of_a_group_waits_for_its_server_when_there_is_no_other() -> None:
    """Nothing is left for the second server, however idle."""
    stop, got = Stop(), list[str]()
    groups = Groups(Places(1), [{}], [[{}] * 2])
    groups.take((ONE, TWO), stop)
    waiting = threading.Thread(target=lambda: got.append(groups.take((ONE, TWO), stop)[0]))
    waiting.start()
    groups.places.give_back(ONE, failed=False)
    waiting.join(30)
    assert got == [ONE]


def test_what_a_failed_server_leaves_of_its_group_goes_to_another() -> None:
    stop = Stop()
    groups = Groups(Places(4), [{}], [[{}] * 3])
    groups.take((ONE, TWO), stop)
    groups.places.give_back(ONE, failed=True)
    assert [groups.take((ONE, TWO), stop)[:3] for _ in range(2)] == [(TWO, 0, 1), (TWO, 0, 2)]


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
    which begins when no more than `tail` requests are to come: the rest of what each server has begun.

    Args:
        places: of every server.
        requests: that are to come.
        tail: see above.
        reply: to all.
    """

    def __init__(self, places: int, requests: int, tail: int, reply: Any) -> None:
        self.places, self.left, self.tail, self.reply = places, requests, tail, reply
        self.busy, self.most, self.changed, self.ended = Counter[str](), Counter[str](), threading.Condition(), 0
        self.asked = dict[str, list[Any]]({"one": [], "two": []})

    def hook(self, name: str) -> Callable[[str, dict[str, Any]], Any]:
        """Of one of the servers."""

        def hook(path: str, body: dict[str, Any]) -> Any:
            if path != "/v1/completions":
                return None
            with self.changed:
                self.asked[name].append((tuple(body["prompt"]), body["n"], body["seed"]))
                self.left, self.busy[name] = self.left - 1, self.busy[name] + 1
                self.most[name] = max(self.most[name], self.busy[name])
                self.changed.notify_all()
                full = self.changed.wait_for(
                    lambda: self.left <= self.tail or [*self.busy.values()] == [self.places] * 2, timeout=60
                )
                self.ended += self.left > self.tail
                self.busy[name] -= 1
                choice = {**self.reply, "index": 0, "prompt_token_ids": body["prompt"]}
                return (200, {"choices": [choice]}) if full else (400, {"error": {"message": "places are left"}})

        return hook


def test_two_servers_have_no_place_left_but_for_the_tail_of_512_prompts_of_4_rollouts() -> None:
    """16 places each. Places that become free are taken by a further answer before another one ends, or the requests
    that wait for that are refused; 32 are under way when all prompts of the 2,048 answers have begun.
    All answers of a prompt are asked of one server, with seeds that follow each other."""
    policy = text_model(4)
    end = policy.chat.end_id
    said = {"token_ids": [end], "logprobs": {"token_logprobs": [-0.5], "top_logprobs": None}, "finish_reason": "stop"}
    filled = Filled(16, 512 * 4, 2 * 3, said | {"stop_reason": None})
    with VllmServer(policy) as one, VllmServer(policy) as two:
        one.hook, two.hook = filled.hook("one"), filled.hook("two")
        sampler = ServerSampler(client(one.url, two.url, role="rollout", concurrency=16, patience=120), end_id=end)
        whole = list[int]()
        prompts = [Prompt((20 + i % 30, 20 + i // 30)) for i in range(512)]
        made = sampler.stream(prompts, SamplingParams(8), 4, lambda place, completions: whole.append(place))
    assert sorted(whole) == list(range(512)) and {len(group) for group in made} == {4}
    assert filled.most == {"one": 16, "two": 16}
    assert filled.ended >= 2048 - 2 * 16 - 2 * 3
    asked = [{prompt for prompt, _, _ in filled.asked[name]} for name in ("one", "two")]
    assert not asked[0] & asked[1]
    wanted = [(p.ids, 1, 4 * i + j) for i, p in enumerate(prompts) for j in range(4)]
    assert sorted(filled.asked["one"] + filled.asked["two"]) == sorted(wanted)
