"""Talk to vLLM servers over HTTP: spread requests, send them again where one fails, wait where all are down.

A run that trains for days outlives its servers. A server that does not answer is reported once and waited for up to
`patience` seconds; only then does the caller get an error, and until then nothing is lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from vold.engines.http import (
    BUSY,
    CONNECT_SECONDS,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    TIMEOUT_SECONDS,
    retry_after,
    words,
)
from vold.errors import ConfigError, VoldError
from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.run.model_sections import Server


Reply = TypeVar("Reply")


class VllmClient:
    """Servers that all hold the same model.

    Args:
        urls: base addresses that end in `/v1`; request i goes to the i-th in turn, a retry to the next.
        model: the name the servers give the model.
        role: what the servers are to the run, for messages: "teacher" or "rollout".
        error: raised where servers fail for good.
        key: bearer token; empty for none. It is held in memory only.
        concurrency: requests under way at a time.
        patience: seconds to wait for servers that do not answer.
        sleep: whether the servers give up their GPU's memory outside `awake`.
        first_wait: seconds before the second round over all servers; each further wait is twice as long.
        report: is told of outages; printed if absent.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        role: str,
        error: type[VoldError],
        key: str = "",
        concurrency: int = 32,
        patience: float = 1800.0,
        sleep: bool = False,
        first_wait: float = FIRST_WAIT_SECONDS,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.urls, self.model, self.role, self.error = [u.rstrip("/") for u in urls], model, role, error
        self.concurrency, self.patience, self.first_wait = concurrency, patience, first_wait
        self.report = report or console.print
        self.sleep = sleep
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
        )
        weakref.finalize(self, self.client.close)
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._down_since: float | None = None

    @classmethod
    def from_config(cls, config: Server, *, role: str, error: type[VoldError]) -> VllmClient:
        """Build from a recipe's section.

        Raises:
            ConfigError: the environment variable of `key_env` is not set.
        """
        key = os.environ.get(config.key_env, "") if config.key_env else ""
        if config.key_env and not key:
            raise ConfigError(
                "this environment variable is not set", where="key_env", got=config.key_env, fix="export it, or drop it"
            )
        return cls(
            config.urls,
            config.model,
            role=role,
            error=error,
            key=key,
            concurrency=config.concurrency,
            patience=config.patience,
            sleep=config.sleep,
        )

    def post(
        self,
        path: str,
        bodies: Sequence[dict[str, Any]],
        *,
        root: bool = False,
        heard: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """POST each body to some server, several at a time; replies in request order.

        Args:
            path: below `/v1`, or below the servers' root where `root` is set.
            bodies: JSON to send; the model's name is added.
            root: see `path`.
            heard: called in this thread with the place of a body and its reply, in the order of the replies.

        Raises:
            VoldError: of the class `error`. A request was refused for good, or no server answered within `patience`.
        """
        bases = self._roots() if root else self.urls
        calls = [
            partial(self._send, "POST", bases, path, next(self._turn), {"model": self.model, **body}) for body in bodies
        ]
        return self._together(calls, self.concurrency, heard)

    def each(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        root: bool = False,
        must: bool = True,
    ) -> list[dict[str, Any] | None]:
        """The same request to every server, in the order of `urls`.

        Args:
            method: "GET" or "POST".
            path: below `/v1`, or below the server's root where `root` is set.
            body: JSON to send.
            root: see `path`.
            must: wait for each server. Otherwise one that does not answer at once is reported and gives None.

        Raises:
            VoldError: as `post`.
        """
        bases = self._roots() if root else self.urls

        def ask(base: str, stop: threading.Event) -> dict[str, Any] | None:
            try:
                return self._send(method, [base], path, 0, body, stop, once=not must)
            except _NoAnswer:
                self.report(f"{self.role} server {base} does not answer; going on with the others")
                return None

        return self._together([partial(ask, base) for base in bases], len(bases))

    def _together(
        self,
        calls: Sequence[Callable[[threading.Event], Reply]],
        workers: int,
        heard: Callable[[int, Reply], None] | None = None,
    ) -> list[Reply]:
        """Results of the calls in their order, `workers` at a time. The first that fails stops the rest."""
        todo = iter(range(len(calls)))
        results: queue.SimpleQueue[tuple[int, Reply] | BaseException] = queue.SimpleQueue()
        stop, lock = threading.Event(), threading.Lock()

        def work() -> None:
            while not stop.is_set():
                with lock:
                    place = next(todo, None)
                if place is None:
                    return
                try:
                    results.put((place, calls[place](stop)))
                except BaseException as error:
                    stop.set()
                    results.put(error)

        # Daemons: an interrupted run must not wait for answers that nobody will read.
        for _ in range(min(workers, len(calls))):
            threading.Thread(target=work, daemon=True).start()
        found: dict[int, Reply] = {}
        try:
            while len(found) < len(calls):
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                found[result[0]] = result[1]
                if heard is not None:
                    heard(*result)
        finally:
            stop.set()
        return [found[i] for i in range(len(calls))]

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Wake the servers, and put them to sleep again after the block; nothing is done without `sleep`."""
        if self.sleep:
            self.each("POST", "/wake_up", root=True)
        yield
        if self.sleep:
            self.each("POST", "/sleep?level=1", root=True)

    def _roots(self) -> list[str]:
        return [u.removesuffix("/v1") for u in self.urls]

    def context(self) -> int:
        """Tokens that prompt and response may have together: the least of all servers.

        Raises:
            VoldError: a server does not know the model; otherwise as `post`.
        """
        least = []
        for url, reply in zip(self.urls, self.each("GET", "/models"), strict=True):
            rows = (reply or {}).get("data") or []
            row = next((r for r in rows if r.get("id") == self.model), None)
            if row is None:
                raise self.error(
                    f"this {self.role} server holds another model",
                    where=url,
                    got=", ".join(str(r.get("id")) for r in rows),
                    fix=f"start it with --served-model-name {self.model}, or name its model in the recipe",
                )
            least.append(int(row.get("max_model_len") or 0))
        return min(least)

    def _send(
        self,
        method: str,
        bases: Sequence[str],
        path: str,
        turn: int,
        body: dict[str, Any] | None,
        stop: threading.Event,
        *,
        once: bool = False,
    ) -> dict[str, Any]:
        wait, deadline, problem = self.first_wait, 0.0, ""
        for attempt in itertools.count():
            url, asked = bases[(turn + attempt) % len(bases)] + path, 0.0
            try:
                response = self.client.request(method, url, json=body)
            except httpx.HTTPError as error:
                problem = f"{url}: {type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    data = _json(response)
                    if data is not None:
                        self._is_up()
                        return data
                    problem = f"{url}: no JSON: {response.text[:200]}"
                elif 400 <= response.status_code < 500 and response.status_code not in BUSY:
                    raise self.error(
                        f"the {self.role} server refuses a request",
                        where=url,
                        got=f"status {response.status_code}: {words(response)}",
                        fix="docs/engines.md says how to start a server, and with which options",
                    )
                else:
                    problem, asked = f"{url}: status {response.status_code}: {words(response)}", retry_after(response)
            if once:
                raise _NoAnswer(problem)
            if (attempt + 1) % len(bases):  # another server may answer at once
                continue
            deadline = deadline or time.monotonic() + self.patience
            pause = min(max(wait, asked), LONGEST_WAIT_SECONDS)
            self._is_down(problem)
            if time.monotonic() + pause > deadline or stop.wait(pause):
                break
            wait *= 2
        raise self.error(
            f"no {self.role} server answers",
            where=", ".join(bases),
            got=f"waited {self.patience:g} s; the last try: {problem}",
            fix="start the server again and repeat the command: it goes on from here",
        )

    def _is_down(self, problem: str) -> None:
        with self._lock:
            if self._down_since is None:
                self._down_since = time.monotonic()
                self.report(f"no {self.role} server answers, waiting up to {self.patience:g} s for it ({problem})")

    def _is_up(self) -> None:
        with self._lock:
            if self._down_since is not None:
                self.report(f"a {self.role} server answers again after {time.monotonic() - self._down_since:.0f} s")
                self._down_since = None


class _NoAnswer(Exception):
    """A single try failed."""


def _json(response: httpx.Response) -> dict[str, Any] | None:
    """The body's object, {} where it is empty; None where it was cut short."""
    if not response.content:
        return {}
    try:
        data = response.json()
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
