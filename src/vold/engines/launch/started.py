"""What is known of servers that the run has started itself, by their address: their key, their turn, where they are
now, and whether they are gone for good."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vold.errors import VoldError


@dataclass(frozen=True)
class Started:
    """A server of the run's own.

    Attributes:
        key: that it asks of whoever asks it.
        turn: set while it may have its GPUs. One that dies in its sleep is started again when its turn comes.
        failure: why it is not started again; None while it is.
        now: its base address where it has come to another machine; empty where it has not.
    """

    key: str
    turn: threading.Event = field(default_factory=threading.Event)
    failure: Callable[[], VoldError | None] = lambda: None
    now: Callable[[], str] = lambda: ""


STARTED: dict[str, Started] = {}
"""By base address."""


def started_at(urls: Iterable[str]) -> list[Started]:
    """Those at these base addresses, with or without `/v1`."""
    found = (STARTED.get(url.removesuffix("/v1") + "/v1") for url in urls)
    return [one for one in found if one is not None]


def where_now(url: str) -> str:
    """The base address, with or without `/v1` as it is given, at which this server is now."""
    for one in started_at([url]):
        if moved := one.now():
            return moved if url.endswith("/v1") else moved.removesuffix("/v1")
    return url


def given_up(urls: Iterable[str]) -> VoldError | None:
    """Why none of these addresses will answer any more; None where one may."""
    failures = [one.failure() for url in urls for one in started_at([url]) or [Started("")]]
    return failures[0] if failures and all(failures) else None
