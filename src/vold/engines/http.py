"""Servers over HTTP: requests spread over them, several at a time, sent again where one fails, waited for where all do.

One rule for every client: a try that fails goes to the next server at once. After a round over all of them comes a
pause, each twice as long as the one before, or as long as a server asks. What a server refuses (a redirect, or a status
of 400 to 499 that is not `BUSY`) is not sent again. A try that takes too long, or sends too much, has failed.
"""

from __future__ import annotations

import email.utils
import itertools
import json
import math
import os
import queue
import threading
import time
import weakref
import zlib
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import httpx

from vold.engines.deadline import Stop, Watch, watched
from vold.engines.replies import is_no_reply
from vold.errors import ConfigError
from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from vold.errors import VoldError
    from vold.run.model_sections import Endpoint

JsonObject: TypeAlias = dict[str, Any]
Reply = TypeVar("Reply")

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 20.0
"""Between two rounds, unless a server asks for more."""
SLOW_SECONDS = 60.0
"""A request under way for longer is reported, if it also takes twice as long as any before it."""

BUSY = (408, 409, 425, 429)
"""Statuses below 500 that ask for another try."""


class Failed(NamedTuple):
    """A try that may go better the next time: why, how many seconds the server asks to wait, and how many of our
    patience went into it already."""

    why: str
    wait: float = 0.0
    spent: float = 0.0


class _Unreadable(Exception):
    """A body that is not read to its end; says why."""


class HttpClient(Generic[Reply]):
    """Servers that answer the same requests. A class below says what a reply is and what becomes of a refusal.

    Args:
        config: their addresses, the model's name there, the key and the requests under way at a time.
        role: what the servers are to the run, for messages: "teacher", "rollout", or nothing.
        error: raised where no server answers.
        report: is told when a server is slow, when all are down, and when one is up again.

    Raises:
        ConfigError: the environment variable of `key_env` is not set, or holds no key.
    """

    first_wait: float = 0.5
    """Seconds before the second round over all servers."""
    rounds: float = math.inf
    """Rounds over all servers before it gives up."""
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

    def __init__(
        self,
        config: Endpoint,
        *,
        role: str = "",
        error: type[VoldError],
        report: Callable[[str], None] = lambda words: console.print(words),
    ) -> None:
        self.urls, self.model, self.concurrency = [u.rstrip("/") for u in config.urls], config.model, config.concurrency
        self.server, self.error, self.report = f"{role} server".strip(), error, report
        key = _key(config.key_env) if config.key_env else ""  # held in memory only
        self.client = watched(
            httpx.Client(
                headers={"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {key}"} if key else {}),
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # all other waits are the `Watch`'s
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
            )
        )
        weakref.finalize(self, self.client.close)
        self._turn, self._lock = itertools.count(), threading.Lock()
        self._down_since: float | None = None
        self._slowest, self._answered = 0.0, dict[str, float]()

    def read(self, base: str, path: str, value: object) -> Reply | None:
        """What a body says, None of an empty one; None where it is no whole reply."""
        raise NotImplementedError

    def refuse(self, url: str, status: int, message: str) -> Reply:
        """What takes the place of a reply where a server will never serve the request; or an error."""
        raise NotImplementedError

    def send(
        self, bases: Sequence[str], path: str, body: JsonObject | None, stop: Stop, *, turn: int = 0, get: bool = False
    ) -> Reply:
        """The first whole reply; try t goes to the server `turn` + t. Gives up early once `stop` is set.

        Raises:
            VoldError: of the class `error`: no server answers, or as `refuse`.
        """
        wait, asked, give_up, why = self.first_wait, math.inf, math.inf, ""
        for tries in itertools.count(1):
            seconds = max(min(self.patience, give_up - time.monotonic()), 2 * self._slowest, self.shortest)
            base = bases[(turn + tries - 1) % len(bases)]
            found = self.send_once(base, path, body, stop, get=get, seconds=seconds)
            if not isinstance(found, Failed):
                self._outage("")
                return found
            why, asked = found.why, min(asked, found.wait)
            give_up = min(give_up, time.monotonic() - found.spent + self.patience)
            rounds, within = divmod(tries, len(bases))
            if within and not stop.is_set():  # another server may answer at once
                continue
            self._outage(why)
            left = give_up - time.monotonic()
            if rounds >= self.rounds or left <= 0 or stop.wait(min(max(wait, asked), left)):
                break
            wait, asked = min(2 * wait, LONGEST_WAIT_SECONDS), math.inf
        raise self.error(
            f"no {self.server} answers",
            where=", ".join(bases),
            got=f"{tries} tries, the last: {why}",
            fix="start the server again and repeat the command: it goes on from here",
        )

    def send_once(
        self, base: str, path: str, body: JsonObject | None, stop: Stop, *, get: bool = False, seconds: float = math.inf
    ) -> Reply | Failed:
        """One try, of up to `seconds` or `longest`. Raises as `refuse`."""
        seconds = min(self.longest, seconds)
        slow = max(SLOW_SECONDS, 2 * self._slowest), lambda: self._slow(base, seconds)
        watch = Watch(seconds, self.longest, lambda: self._answered.get(base, 0.0), stop, slow)
        try:
            with watch.running(), self.client.stream("GET" if get else "POST", base + path, json=body) as response:
                raw = _body(response, self.most_bytes)
        except httpx.HTTPError as error:
            return Failed(
                f"{base}: {type(error).__name__}: {error}",
                spent=watch.waited if isinstance(error, httpx.TimeoutException) else 0.0,
            )
        except _Unreadable as error:
            return Failed(f"{base}: no whole reply: {error}")
        status, headers = response.status_code, response.headers
        if status == 200:
            said, wrong = _parsed(raw)
            reply = None if wrong or is_no_reply(said) else self.read(base, path, said)
            if reply is None:
                return Failed(f"{base}: no whole reply: {wrong and f'{wrong}: '}{_message(raw)}")
            self._answered[base] = time.monotonic()
            self._slowest = max(self._slowest, self._answered[base] - watch.began)
            return reply
        if 300 <= status < 400:
            there = headers.get("location", "nowhere")[:200]
            return self.refuse(base + path, status, f"it redirects to {there}; name that address in `urls`")
        if 400 <= status < 500 and status not in BUSY:
            return self.refuse(base + path, status, _message(raw))
        return Failed(f"{base}: status {status}: {_message(raw)}", _retry_after(headers.get("retry-after", "")))

    def _slow(self, base: str, seconds: float) -> None:
        self.report(f"{self.server} {base} is slow: a request is under way still, for up to {seconds:g} s")

    def _outage(self, why: str) -> None:
        """Report that no server answers, or (without a reason) that one does again."""
        with self._lock:
            if why and self._down_since is None:
                self._down_since = time.monotonic()
                limit = f"{self.patience:g} s" if math.isinf(self.rounds) else f"{self.rounds:g} rounds"
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
        stop.at_once = True
        stop.set()
        room.release(workers)
    if failure is not None:
        raise failure


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


def _body(response: httpx.Response, most: int) -> bytes:
    """All of a body, decoded.

    Raises:
        _Unreadable: it is longer than `most` bytes, cut short, or encoded as was not asked for.
    """
    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > most:
            raise _Unreadable(f"more than {most:,} bytes")
    raw, encoding = b"".join(parts), response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise _Unreadable(f"encoded as {encoding[:40]!r}")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpack.decompress(raw, most + 1)
    except zlib.error as error:
        raise _Unreadable(f"encoded as {encoding}, but {error}") from None
    if len(found) > most:
        raise _Unreadable(f"more than {most:,} bytes")
    if not unpack.eof or unpack.unused_data:
        raise _Unreadable(f"encoded as {encoding}, and cut short or with more behind it")
    return found


def _parsed(raw: bytes) -> tuple[object, str]:
    """The JSON value of a body, None if it is empty, and why there is none."""
    try:
        return (json.loads(raw, object_pairs_hook=_once) if raw else None), ""
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, str(error)


def _once(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _message(raw: bytes) -> str:
    """The server's message: `error.message`, `message` or `detail` of a JSON body, else the start of the body."""
    said, _ = _parsed(raw)
    found = said.get("error") or said if isinstance(said, dict) else None
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail")
    return str(found or raw[:600].decode(errors="replace"))[:300]


def _retry_after(value: str) -> float:
    """Seconds the server asks to wait, by number or date; 0 where it does not say.

    Example:
        >>> _retry_after("120"), _retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), _retry_after("soon")
        (120.0, 0.0, 0.0)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return 0.0
