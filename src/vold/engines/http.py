"""What servers' replies say, for every client that sends requests again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 20.0
TIMEOUT_SECONDS = 1800.0
"""An answer of 8,192 tokens on a busy server takes minutes."""

BUSY = (408, 409, 425, 429)
"""Statuses below 500 that ask for another try."""


def words(response: httpx.Response) -> str:
    """The server's message: `error.message`, `message` or `detail` of a JSON body, else the start of the body."""
    try:
        data = response.json()
        error = data.get("error", data)
        said = error if isinstance(error, str) else error.get("message") or error.get("detail")
    except (ValueError, AttributeError):
        said = None
    return str(said or response.text)[:300]


def retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say. (A date instead of a number is ignored.)"""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
