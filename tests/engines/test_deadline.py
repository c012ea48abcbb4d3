"""Servers that hang, trickle or never end; what they ask to wait; what ends at once when nobody waits any more."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import httpcore
import pytest

from chat_server import ChatServer, chat_client, completion
from engine_backends import client
from vold.engines import http
from vold.engines.chat_api import EndpointSampler
from vold.engines.deadline import Stop, Watch
from vold.engines.http import HttpClient, as_they_come, asking_once
from vold.engines.vllm import VllmClient
from vold.errors import SamplerError, TeacherError
from vold.types import Message, SamplingParams

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
Talk = Callable[[socket.socket, threading.Event], None]


class Raw:
    """Accepts connections and lets `talk` write to them until the test is over."""

    def __init__(self, talk: Talk) -> None:
        self.talk, self.over, self.socket = talk, threading.Event(), socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.talk(connection, self.over)
            except OSError:
                return  # the client has left


@pytest.fixture
def raw() -> Iterator[Callable[[Talk], Raw]]:
    made: list[Raw] = []

    def start(talk: Talk) -> Raw:
        made.append(Raw(talk))
        return made[-1]

    yield start
    for server in made:
        server.over.set()
        server.socket.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpClient, "shortest", 0.2)
    monkeypatch.setattr(VllmClient, "most_bytes", 1 << 20)


def hangs(first: bytes) -> Talk:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        over.wait()

    return talk


def trickles(first: bytes) -> Talk:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        while not over.wait(0.01):
            connection.sendall(b"1")

    return talk


def floods(first: bytes) -> Talk:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        while not over.is_set():
            connection.sendall(b" " * 65536)

    return talk


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (hangs(b""), "no whole reply in"),
        (hangs(b"HTTP/1.1 200 OK\r\n"), "no whole reply in"),
        (hangs(HEAD), "no whole reply in"),
        (trickles(b"HTTP/1.1 200 OK\r\nX-A: "), "no whole reply in"),
        (trickles(HEAD), "no whole reply in"),
        (floods(b"HTTP/1.1 200 OK\r\n\r\n"), "more than 1,048,576 bytes"),
    ],
)
def test_a_reply_that_does_not_end_is_inside_the_patience(raw: Callable[[Talk], Raw], talk: Talk, words: str) -> None:
    server = raw(talk)
    with pytest.raises(TeacherError, match="no teacher server answers") as caught:
        client(server.url, patience=0.3).post("/completions", [{}])
    assert words in caught.value.got
    assert server.url in caught.value.where


@pytest.mark.parametrize("words", ["ConnectError", "no whole reply in 0.2"])
def test_in_a_check_a_server_is_asked_once_and_not_waited_for(
    raw: Callable[[Talk], Raw], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ONCE_SECONDS", 0.2)
    said, deaf = list[str](), socket.socket()
    deaf.bind(("127.0.0.1", 0))  # and does not listen
    url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1" if words == "ConnectError" else raw(hangs(HEAD)).url
    patient = client(url, patience=1800.0, report=said.append)
    with deaf, asking_once(), pytest.raises(TeacherError, match="no teacher server answers") as caught:
        patient.post("/completions", [{}])
    assert caught.value.got.startswith(f"one try: {url}: ") and words in caught.value.got
    assert caught.value.fix == "start the server, or mend its address"
    assert said == []
    assert HttpClient.waits


def test_a_body_counts_as_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(2 << 20))
    assert len(bomb) < 1 << 14

    def talk(connection: socket.socket, over: threading.Event) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
        connection.sendall(head.encode() + bomb)
        over.wait()

    server = Raw(talk)
    with pytest.raises(TeacherError, match="more than 1,048,576 bytes"):
        client(server.url, patience=0.0).post("/completions", [{}])
    server.over.set()
    server.socket.close()


def test_a_server_that_is_slow_is_reported_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SLOW_SECONDS", 0.0)
    said: list[str] = []
    reported = threading.Event()

    def report(words: str) -> None:
        said.append(words)
        reported.set()

    def answer(body: object) -> dict[str, object]:
        assert reported.wait(30)
        return completion("fine")

    with ChatServer(answer) as server:
        patient = client(server.url, report=report, patience=30.0)
        patient.post("/chat/completions", [{}])
    assert len(said) == 1
    assert f"{server.url} is slow" in said[0]


def test_a_server_that_answers_others_meanwhile_is_at_work() -> None:
    def watch(answered: float, longest: float = 100.0) -> Watch:
        return Watch(0.0, longest, lambda: answered, Stop(), (100.0, lambda: None))

    with pytest.raises(httpcore.ReadTimeout):
        watch(0.0).left()
    assert watch(time.monotonic() + 50).left() > 40
    with pytest.raises(httpcore.ReadTimeout):
        watch(time.monotonic() + 50, longest=0.0).left()


class Waits(Stop):
    """Notes how long a client would wait, and lets it go on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("120", 120, 120),
        (" 7 ", 7, 7),
        ("5000", 299, 300),  # no longer than the patience
        ("9" * 40, 299, 300),
        (formatdate(2**32, usegmt=True), 299, 300),
        (formatdate(0, usegmt=True), 0.001, 0.001),
        ("-5", 0.001, 0.001),
        ("1.5", 0.001, 0.001),
        ("soon", 0.001, 0.001),
        ("", 0.001, 0.001),
    ],
)
def test_what_a_server_asks_to_wait_is_waited_up_to_the_patience(asked: str, least: float, most: float) -> None:
    replies = iter([(503, "busy", {"Retry-After": asked})])
    with ChatServer(lambda body: next(replies, completion("fine"))) as server:
        patient, waits = client(server.url, patience=300.0), Waits()
        patient.send([server.url], "/chat/completions", {}, waits)
    assert len(waits.seconds) == 1
    assert least <= waits.seconds[0] <= most


def test_a_redirect_is_not_followed_and_is_named() -> None:
    with ChatServer(lambda body: (307, "", {"Location": "http://elsewhere.example/v1"})) as server:
        with pytest.raises(TeacherError, match=r"redirects to http://elsewhere\.example/v1"):
            client(server.url).post("/chat/completions", [{}])
        with pytest.raises(SamplerError, match=r"redirects to http://elsewhere\.example/v1"):
            chat_client(server.url).chat((Message("user", "a"),), SamplingParams(8))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ('{"choices": ' + "9" * 5000 + "}", "4300 digits"),
        ('{"error": {"message": "engine dead"}}', "engine dead"),
        ('{"choices": [{"finish_reason": "abort"}]}', "no whole reply"),
        ("", "no whole reply"),
    ],
)
def test_a_body_that_is_no_reply_is_asked_for_again_and_then_said(body: str, words: str) -> None:
    with ChatServer(lambda _: (200, body)) as server, pytest.raises(TeacherError) as caught:
        client(server.url, patience=0.05).post("/completions", [{}])
    assert words in caught.value.got
    assert "no whole reply" in caught.value.got


def test_deep_brackets_in_a_refusal_are_a_refusal() -> None:
    with ChatServer(lambda _: (400, '{"error":' * 100_000)) as server, pytest.raises(TeacherError, match="status 400"):
        client(server.url).post("/completions", [{}])


def test_nothing_is_left_hanging_when_the_consumer_is_interrupted(raw: Callable[[Talk], Raw]) -> None:
    server, before = raw(hangs(HEAD)), set(threading.enumerate())
    patient = client(server.url, patience=1000.0)

    def asks(stop: Stop) -> object:
        return patient.send([server.url], "/completions", {}, stop)

    replies = as_they_come([lambda stop: "first", asks, asks, asks], 3)
    assert next(replies) == (0, "first")
    workers = set(threading.enumerate()) - before
    replies.close()
    for worker in workers:
        if worker.name.startswith("Thread-") and "_serve" not in worker.name and "_accept" not in worker.name:
            worker.join(30)
            assert not worker.is_alive()


def test_an_endpoint_has_patience_too() -> None:
    assert EndpointSampler.patience == 1800
    assert EndpointSampler.most_bytes < HttpClient.most_bytes
