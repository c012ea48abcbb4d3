"""Bodies of requests and replies over HTTP: written in pieces, read to their end, and their JSON looked at."""

from __future__ import annotations

import email.utils
import json
import time
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

from vold.run.records import JsonObject

if TYPE_CHECKING:
    import httpx

Body: TypeAlias = JsonObject | tuple[bytes, ...]
"""What is sent: an object, or JSON that is written already, in pieces that other requests may share."""


ONE_PIECE = 1 << 16
"""Bytes up to which copying is cheaper than sending twice."""


class Unreadable(Exception):
    """A body that is not read to its end; says why."""


def sent(body: Body | None) -> JsonObject:
    """A body as httpx takes it."""
    if not isinstance(body, tuple):
        return {"json": body}
    size = sum(map(len, body))
    headers = {"Content-Type": "application/json", "Content-Length": str(size)}
    return {"content": b"".join(body) if size < ONE_PIECE else body, "headers": headers}


def dumped(value: JsonObject) -> bytes:
    """As JSON. Raises ValueError where a number is none that JSON has."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def read_body(response: httpx.Response, most: int) -> bytes:
    """All of a body, decoded.

    Raises:
        Unreadable: it is longer than `most` bytes, cut short, or encoded as was not asked for.
    """
    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > most:
            raise Unreadable(f"more than {most:,} bytes")
    raw, encoding = b"".join(parts), response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable(f"encoded as {encoding[:40]!r}")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpack.decompress(raw, most + 1)
    except zlib.error as error:
        raise Unreadable(f"encoded as {encoding}, but {error}") from None
    if len(found) > most:
        raise Unreadable(f"more than {most:,} bytes")
    if not unpack.eof or unpack.unused_data:
        raise Unreadable(f"encoded as {encoding}, and cut short or with more behind it")
    return found


def parsed(raw: bytes) -> tuple[object, str]:
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


def message_of(raw: bytes) -> str:
    """The server's message: `error.message`, `message` or `detail` of a JSON body, else the start of the body."""
    said, _ = parsed(raw)
    found = said.get("error") or said if isinstance(said, dict) else None
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail")
    return str(found or raw[:600].decode(errors="replace"))[:300]


def retry_after(value: str) -> float:
    """Seconds the server asks to wait, by number or date; 0 where it does not say.

    Example:
        >>> retry_after("120"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after("soon")
        (120.0, 0.0, 0.0)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return 0.0
