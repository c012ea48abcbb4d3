"""The part that runs inside a vLLM server which is sent pictures: its replies say which pictures it was sent.

`--middleware vold.engines.seen.Seen` puts it around the server. It imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

ROUTE = "/inference/v1/generate"
"""vLLM's route of ids in, ids out; `--enable-scale-out` opens it."""
KEY = "pictures_seen"
"""Of a reply: the digest of each picture, in the order of the request."""


def digest(uri: str) -> str:
    """What tells a picture, as it is sent, from every other: the SHA-256 of its data URI."""
    return hashlib.sha256(uri.encode()).hexdigest()


class Seen:
    """Adds `KEY` to the reply to each request of `ROUTE`. ASGI middleware.

    Args:
        app: the server.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != ROUTE:
            await self.app(scope, receive, send)
            return
        heard: list[bytes] = []
        seen: list[str] = []
        held: list[Message] = []

        async def hear() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                heard.append(message.get("body", b""))
                if not message.get("more_body", False):
                    seen.extend(_digests(b"".join(heard)))
                    heard.clear()
            return message

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                held.append(message)  # its length is about to change
                return
            for start in held:
                more = json.dumps({KEY: seen}).encode()[:-1] + b", "
                message = {**message, "body": more + message["body"].removeprefix(b"{")}
                await send({**start, "headers": _longer(start["headers"], len(more) - 1)})
            held.clear()
            await send(message)

        await self.app(scope, hear, say)


def _digests(body: bytes) -> list[str]:
    """Of the pictures of a request; none of one that the server will refuse."""
    try:
        return [digest(part["url"]) for part in json.loads(body).get("content_parts") or ()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _longer(headers: list[tuple[bytes, bytes]], by: int) -> list[tuple[bytes, bytes]]:
    return [(k, str(int(v) + by).encode() if k.lower() == b"content-length" else v) for k, v in headers]
