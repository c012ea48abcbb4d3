"""Servers over HTTP: requests spread over them, several at a time, sent again where one fails, waited for where all do.

One rule for every client: a try that fails goes to the next server at once. After a round over all of them comes a
pause, each twice as long as the one before. What a server refuses (a status of 400 to 499 that is not `BUSY`) is not
sent again.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import threading
import time
import weakref
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import httpx

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from vold.errors import VoldError
    from vold.run.model_sections import Endpoint

JsonObject: TypeAlias = dict[str, Any]
Reply = TypeVar("Reply")

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 20.0
TIMEOUT_SECONDS = 1800.0
"""An answer of 8,192 tokens on a busy server takes minutes."""

BUSY = (408, 409, 425, 429)
"""Statuses below 500 that ask for another try."""


class Failed(NamedTuple):
    """A try that may go better the next time: why, and how many seconds the server asks to wait."""

    why: str
    wait: float = 0.0


class HttpClient(Generic[Reply]):
    """Servers that answer the same requests. A class below says what a reply is and what becomes of a refusal.

    Args:
        config: their addresses, the model's name there, the key and the requests under way at a time.
        role: what the servers are to the run, for messages: "teacher", "rollout", or nothing.
        error: raised where no server answers.
        report: is told when all servers are down and when one is up again.

    Raises:
        ConfigError: the environment variable of `key_env` is not set.
    """

    first_wait: float = 0.5
    """Seconds before the second round over all servers."""
    rounds: float = math.inf
    """Rounds over all servers before it gives up."""
    patience: float = math.inf
    """Seconds from the first failed round on before it gives up."""

    def __init__(
        self,
        config: Endpoint,
        *,
        role: str = "",
        error: type[VoldError],
        report: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.urls, self.model, self.concurrency = [u.rstrip("/") for u in config.urls], config.model, config.concurrency
        self.server, self.error, self.report = f"{role} server".strip(), error, report
        key = os.environ.get(config.key_env, "") if config.key_env else ""  # held in memory only
        if config.key_env and not key:
            raise ConfigError(
                "this environment variable is not set", where="key_env", got=config.key_env, fix="export it, or drop it"
            )
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
        )
        weakref.finalize(self, self.client.close)
        self._turn, self._lock = itertools.count(), threading.Lock()
        self._down_since: float | None = None

    def read(self, response: httpx.Response) -> Reply | None:
        """What a response with status 200 says; None where it was cut short."""
        raise NotImplementedError

    def refuse(self, url: str, status: int, message: str) -> Reply:
        """What takes the place of a reply where a server will never serve the request; or an error."""
        raise NotImplementedError

    def send(
        self, bases: Sequence[str], path: str, body: JsonObject | None, stop: Event, *, turn: int = 0, get: bool = False
    ) -> Reply:
        """The first whole reply; try t goes to the server `turn` + t. Gives up early once `stop` is set.

        Raises:
            VoldError: of the class `error`: no server answers, or as `refuse`.
        """
        wait, deadline = self.first_wait, math.inf
        for tries in itertools.count(1):
            found = self.send_once(bases[(turn + tries - 1) % len(bases)], path, body, get=get)
            if not isinstance(found, Failed):
                self._outage("")
                return found
            rounds, within = divmod(tries, len(bases))
            if within:  # another server may answer at once
                continue
            why, pause = found.why, min(max(wait, found.wait), LONGEST_WAIT_SECONDS)
            deadline = min(deadline, time.monotonic() + self.patience)
            self._outage(why)
            if rounds >= self.rounds or time.monotonic() + pause > deadline or stop.wait(pause):
                break
            wait *= 2
        raise self.error(
            f"no {self.server} answers",
            where=", ".join(bases),
            got=f"{tries} tries, the last: {why}",
            fix="start the server again and repeat the command: it goes on from here",
        )

    def send_once(self, base: str, path: str, body: JsonObject | None, *, get: bool = False) -> Reply | Failed:
        """One try. Raises as `refuse`."""
        try:
            response = self.client.request("GET" if get else "POST", base + path, json=body)
        except httpx.HTTPError as error:
            return Failed(f"{base}: {type(error).__name__}: {error}")
        status = response.status_code
        if status == 200 and (reply := self.read(response)) is not None:
            return reply
        message = _message(response)
        if status == 200:
            return Failed(f"{base}: no whole reply: {message}")
        if 400 <= status < 500 and status not in BUSY:
            return self.refuse(base + path, status, message)
        return Failed(f"{base}: status {status}: {message}", _retry_after(response))

    def _outage(self, why: str) -> None:
        """Report that no server answers, or (without a reason) that one does again."""
        with self._lock:
            if why and self._down_since is None:
                self._down_since = time.monotonic()
                self.report(f"no {self.server} answers, waiting up to {self.patience:g} s for it ({why})")
            elif not why and self._down_since is not None:
                self.report(f"a {self.server} answers again after {time.monotonic() - self._down_since:.0f} s")
                self._down_since = None


def as_they_come(calls: Sequence[Callable[[Event], Reply]], workers: int) -> Generator[tuple[int, Reply], None, None]:
    """The place and result of each call as it ends, with `workers` calls at a time.

    The first call that raises stops the rest: the event that every call is given is set, no new one is made, and what
    is under way and still ends well is yielded before the error is raised. No more than `workers` results wait to be
    taken, lest paid-for ones pile up behind a slow consumer.
    """
    results: queue.SimpleQueue[tuple[int, Reply] | BaseException | None] = queue.SimpleQueue()
    room, stop, places = threading.Semaphore(2 * workers), Event(), itertools.count()

    def work() -> None:
        while room.acquire() and not stop.is_set():
            place = next(places)  # of CPython's counter no two threads get the same
            if place >= len(calls):
                break
            try:
                results.put((place, calls[place](stop)))
            except BaseException as error:  # handed to the consumer's thread
                results.put(error)
                stop.set()
        results.put(None)

    # Daemons: an interrupted run must not wait for answers that nobody will read.
    at_work = min(workers, len(calls))
    for _ in range(at_work):
        threading.Thread(target=work, daemon=True).start()
    failure: BaseException | None = None
    try:
        while at_work:
            result = results.get()
            if result is None:
                at_work -= 1
            elif isinstance(result, BaseException):
                failure = failure or result
                room.release(workers)
            else:
                yield result
                room.release()
    finally:
        stop.set()
        room.release(workers)
    if failure is not None:
        raise failure


def _message(response: httpx.Response) -> str:
    """The server's message: `error.message`, `message` or `detail` of a JSON body, else the start of the body."""
    try:
        data = response.json()
        error = data.get("error", data)
        said = error if isinstance(error, str) else error.get("message") or error.get("detail")
    except (ValueError, AttributeError):
        said = None
    return str(said or response.text)[:300]


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say. (A date instead of a number is ignored.)"""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
