"""Servers over HTTP: requests spread over them, several at a time, sent again where one fails, waited for where all do.

One rule for every client: a request goes to the least busy server, and a try that fails to the next one at once. After
a round over all of them comes a pause, each twice as long as the one before, or as long as a server asks. What a server
refuses (a redirect, or a status of 400 to 499 that is not `BUSY`) is not sent again. A try that takes too long, or
sends too much, has failed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import threading
import time
import weakref
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

import httpx

from vold.engines.bodies import Body, Unreadable, message_of, parsed, read_body, retry_after, sent
from vold.engines.deadline import Stop, Watch, watched
from vold.engines.launch.started import given_up, started_at, where_now
from vold.engines.places import Connections, Places, allow_connections
from vold.engines.replies import is_no_reply
from vold.errors import ConfigError
from vold.model.lookout import taken
from vold.run.console import console

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Iterator, Sequence

    from vold.errors import VoldError
    from vold.run.model_sections import Endpoint

Reply = TypeVar("Reply")

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 20.0
"""Between two rounds, unless a server asks for more."""
ONCE_SECONDS = 30.0
"""Of a try in a block of `asking_once`."""
SLOW_SECONDS = 60.0
"""A request under way for longer is reported, if it also takes twice as long as any before it."""

BUSY = (408, 409, 425, 429)
"""Statuses below 500 that ask for another try."""


class Failed(NamedTuple):
    """A try that may go better the next time: why, how many seconds the server asks to wait, how many of our patience
    went into it already, and whether the server says that it has too much to do."""

    why: str
    wait: float = 0.0
    spent: float = 0.0
    busy: bool = False


_url = lru_cache(httpx.URL)  # to read an address takes a twelfth of a request's time


@contextlib.contextmanager
def asking_once() -> Iterator[None]:
    """In the block a request goes to each server once, and nobody waits for one that does not answer."""
    HttpClient.waits = False
    try:
        yield
    finally:
        HttpClient.waits = True


class HttpClient(Generic[Reply]):
    """Servers that answer the same requests. A class below says what a reply is and what becomes of a refusal.

    Args:
        config: their addresses, the model's name there, the key and the answers under way at a time.
        role: what the servers are to the run, for messages: "teacher", "rollout", or nothing.
        error: raised where no server answers.
        report: is told when a server is slow, when all are down, and when one is up again.

    Raises:
        ConfigError: the environment variable of `key_env` is not set, or holds no key.
    """

    waits: ClassVar[bool] = True
    """Whether a server that does not answer is waited for; see `asking_once`."""
    first_wait: float = 0.5
    """Seconds before the second round over all servers."""
    rounds: float = math.inf
    """Rounds over all servers before it gives up. One in which servers had too much to do and answered other requests
    does not count."""
    patience: float = 1800.0
    """Seconds before it gives up, from the first failed round on; those that a server kept it waiting count too."""
    longest: float = 1800.0
    """Most seconds of one try, its reply's last byte included. An answer of 8,192 tokens on a busy server takes
    minutes."""
    shortest: float = 5.0
    """A try has as many seconds, and twice those of the slowest reply so far, however little patience is left. A server
    that answers other requests has them anew after each."""
    most_bytes: int = 256 << 20
    """Of a reply, decoded."""
    words: tuple[str, ...] = ()
    """Routes whose reply is no JSON and is not read."""

    def __init__(
        self,
        config: Endpoint,
        *,
        role: str = "",
        error: type[VoldError],
        report: Callable[[str], None] = lambda words: console.print(words),
    ) -> None:
        self.urls, self.model, self.places = (
            [u.rstrip("/") for u in config.urls],
            config.model,
            Places(config.concurrency),
        )
        self.server, self.error, self.report = f"{role} server".strip(), error, report
        own = [one.key for one in started_at(self.urls)]
        key = own[0] if own else _key(config.key_env) if config.key_env else ""  # held in memory only
        headers = {"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {key}"} if key else {})
        # All waits but for a connection are the `Watch`'s.
        timeout, tls = httpx.Timeout(None, connect=CONNECT_SECONDS), _tls()
        # What the environment says of proxies is not for servers of our own on this machine.
        self._connections = Connections(
            lambda: watched(httpx.Client(headers=headers, timeout=timeout, verify=tls, trust_env=not own))
        )
        weakref.finalize(self, self._connections.close)
        allow_connections(self.workers())
        self._turn, self._lock = itertools.count(), threading.Lock()
        self._down_since: float | None = None
        self._slowest, self._answered = 0.0, dict[str, float]()

    def read(self, base: str, path: str, value: object) -> Reply | None:
        """What a body says, None of an empty one; None where it is no whole reply."""
        raise NotImplementedError

    def refuse(self, url: str, status: int, message: str) -> Reply:
        """What takes the place of a reply where a server will never serve the request; or an error."""
        raise NotImplementedError

    def workers(self) -> int:
        """How many requests keep all servers full."""
        return self.places.each * len(self.urls)

    def in_turn(self, bases: Sequence[str]) -> list[str]:
        """The servers, each call with another in front."""
        turn = next(self._turn) % len(bases)
        return [*bases[turn:], *bases[:turn]]

    def send(
        self, bases: Sequence[str], path: str, body: Body | None, stop: Stop, *, taken: str = "", get: bool = False
    ) -> Reply:
        """The first whole reply, of the least busy server, of equals of the one whose turn it is, or, first of all, of
        `taken`, where a place is taken already. Gives up early once `stop` is set.

        Raises:
            VoldError: of the class `error`: no server answers, or as `refuse`.
        """
        wait, asked, give_up, rounds, began = self.first_wait, math.inf, math.inf, 0, 0.0
        order, tries, untried = bases if taken else self.in_turn(bases), 0, list[str]()
        while True:
            if not untried:
                untried, asked, began = [*order], math.inf, time.monotonic()
            seconds = max(min(self.patience, give_up - time.monotonic()), 2 * self._slowest, self.shortest)
            seconds = seconds if self.waits else min(seconds, ONCE_SECONDS)
            ask = partial(self.send_once, path=path, body=body, stop=stop, get=get, seconds=seconds)
            base, taken = taken or self.places.take(untried, stop), ""
            found = self._tried(base, ask)
            if not isinstance(found, Failed):
                self._outage("")
                return found
            untried.remove(base)
            tries += 1
            asked, give_up = min(asked, found.wait), min(give_up, time.monotonic() - found.spent + self.patience)
            if stop.is_set():
                break
            if untried:  # another server may answer at once
                continue
            if not self.waits:
                break
            at_work = found.busy and any(self._answered.get(b, 0.0) > began for b in bases)
            most = math.inf if started_at(bases) else self.rounds  # ours are started again, which takes its time
            rounds += not at_work
            self._outage("" if at_work else found.why, most)
            if (gone := given_up(bases)) is not None:
                raise gone
            left = give_up - time.monotonic()
            if rounds >= most or left <= 0 or stop.wait(min(max(wait, asked), left)):
                break
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise self.error(
            f"no {self.server} answers",
            where=", ".join(bases),
            got=f"{f'{tries} tries, the last' if tries > 1 else 'one try'}: {found.why}",
            fix="start the server again and repeat the command: it goes on from here"
            if self.waits
            else "start the server, or mend its address",
        )

    def _tried(self, base: str, ask: Callable[[str], Reply | Failed]) -> Reply | Failed:
        """One try, on a server where a place is taken for it."""
        found: Reply | Failed = Failed("")
        try:
            found = ask(base)
        finally:
            self.places.give_back(base, failed=isinstance(found, Failed))
        return found

    def send_once(
        self, base: str, path: str, body: Body | None, stop: Stop, *, get: bool = False, seconds: float = math.inf
    ) -> Reply | Failed:
        """One try, of up to `seconds` or `longest`. Raises as `refuse`."""
        seconds = min(self.longest, seconds)
        slow = max(SLOW_SECONDS, 2 * self._slowest), lambda: self._slow(base, seconds)
        watch = Watch(seconds, self.longest, lambda: self._answered.get(base, 0.0), stop, slow)
        method = "GET" if get else "POST"
        try:
            with (
                self._connections.lent(base) as client,
                watch.running(),
                client.stream(method, _url(where_now(base) + path), **sent(body)) as response,
            ):
                raw = read_body(response, self.most_bytes)
        except httpx.HTTPError as error:
            return Failed(
                f"{base}: {type(error).__name__}: {error}",
                spent=watch.waited if isinstance(error, httpx.TimeoutException) else 0.0,
            )
        except Unreadable as error:
            return Failed(f"{base}: no whole reply: {error}")
        status, headers = response.status_code, response.headers
        if status == 200:
            said, wrong = (None, "") if path in self.words else parsed(raw)
            reply = None if wrong or is_no_reply(said) else self.read(base, path, said)
            if reply is None:
                return Failed(f"{base}: no whole reply: {wrong and f'{wrong}: '}{message_of(raw)}")
            self._answered[base] = time.monotonic()
            self._slowest = max(self._slowest, self._answered[base] - watch.began)
            return reply
        if 300 <= status < 400:
            there = headers.get("location", "nowhere")[:200]
            return self.refuse(base + path, status, f"it redirects to {there}; name that address in `urls`")
        if 400 <= status < 500 and status not in BUSY:
            return self.refuse(base + path, status, message_of(raw))
        wait = retry_after(headers.get("retry-after", ""))
        return Failed(f"{base}: status {status}: {message_of(raw)}", wait, busy=status in BUSY)

    def _slow(self, base: str, seconds: float) -> None:
        self.report(f"{self.server} {base} is slow: a request is under way still, for up to {seconds:g} s")

    def _outage(self, why: str, rounds: float = math.inf) -> None:
        """Report that no server answers, or (without a reason) that one does again."""
        with self._lock:
            if why and self._down_since is None:
                self._down_since = time.monotonic()
                limit = f"{self.patience:g} s" if math.isinf(rounds) else f"{rounds:g} rounds"
                self.report(f"no {self.server} answers, waiting up to {limit} for it ({why})")
            elif not why and self._down_since is not None:
                self.report(f"a {self.server} answers again after {time.monotonic() - self._down_since:.0f} s")
                self._down_since = None


def as_they_come(calls: Sequence[Callable[[Stop], Reply]], workers: int) -> Generator[tuple[int, Reply], None, None]:
    """The place and result of each call as it ends, with `workers` calls at a time.

    The first call that raises stops the rest: the event that every call is given is set, no new one is made, and what
    is under way and still ends well is yielded before the error is raised. Where the consumer stops, or is interrupted,
    all end at once. No more than `workers` results wait to be taken, lest paid-for ones pile up behind a slow consumer.
    """
    with contextlib.closing(in_batches(calls, workers)) as batches:
        for batch in batches:
            yield from batch


def in_batches(
    calls: Sequence[Callable[[Stop], Reply]], workers: int
) -> Generator[list[tuple[int, Reply]], None, None]:
    """As `as_they_come`, all that have ended meanwhile at once."""
    results: queue.SimpleQueue[tuple[int, Reply] | BaseException | None] = queue.SimpleQueue()
    room, stop, places = threading.Semaphore(2 * workers), Stop(), itertools.count()

    def work() -> None:
        while room.acquire() and not stop.is_set():
            place = next(places)  # of CPython's counter no two threads get the same
            if place >= len(calls):
                break
            try:
                results.put((place, calls[place](stop)))
            except BaseException as error:  # handed to the consumer's thread
                stop.set()
                room.release(workers)
                results.put(error)
        results.put(None)

    # Daemons: an interrupted run must not wait for answers that nobody will read.
    at_work = min(workers, len(calls))
    for _ in range(at_work):
        threading.Thread(target=work, daemon=True).start()
    failures: list[BaseException] = []
    try:
        while at_work:
            ended = _taken(results)
            at_work -= ended.count(None)
            failures += [one for one in ended if isinstance(one, BaseException)]
            if batch := [one for one in ended if isinstance(one, tuple)]:
                yield batch
                room.release(len(batch))
    finally:
        stop.at_once = True
        stop.set()
        room.release(workers)
    if failures:
        raise failures[0]


def _taken(results: queue.SimpleQueue[Reply]) -> list[Reply]:
    """The next result, and all that are there already."""
    found = [taken(results)]
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(results.get_nowait())
    return found


@cache
def _tls() -> ssl.SSLContext:
    """One for all clients: to read the certificates of this machine takes longer than to make a client."""
    return httpx.create_ssl_context()


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if key and key.isascii() and key.isprintable():
        return key
    raise ConfigError(
        "this environment variable is not set"
        if not key
        else "this environment variable holds no key: it has letters that no header can",
        where="key_env",
        got=variable,
        fix="export it, or drop it",
    )
