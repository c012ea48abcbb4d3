"""A server that answers rightly, but for one reply: what is changed in it, or in the bytes that carry it."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from chat_server import completion, said
from vllm_server import VllmServer
from vold.engines.launch.server import HeldPort
from vold.model.policy import Policy

Change = Callable[[Any], Any]
"""The body in place of the right one."""
Wire = Callable[[BaseHTTPRequestHandler, bytes], None]
"""Sends whatever it likes on a connection in place of the right body."""

ASKED = ("score", "sample", "candidates", "chat", "judge")
"""What a request can be about; for all others it is the route."""


@dataclass(frozen=True)
class Lie:
    """What a server does in place of the right thing.

    Attributes:
        name: of the fault.
        about: which requests: one of `ASKED`, or a route.
        change: of the body; or `wire`, of the bytes.
        wire: see `change`.
        first: the number of the first such request that is answered wrongly, from 1 on.
        lasting: whether all later ones are too.
    """

    name: str
    about: str
    change: Change | None = None
    wire: Wire | None = None
    first: int = 1
    lasting: bool = False


def about(path: str, body: dict[str, Any]) -> str:
    """What a request is about."""
    route = path.partition("?")[0]
    if route == "/v1/completions":
        return "sample" if body.get("prompt_logprobs") is None else "score"
    if route == "/v1/chat/completions":
        return "judge" if body.get("model") == "judge" else "chat"
    return "candidates" if route == "/inference/v1/generate" else route


class LyingServer(VllmServer):
    """Both protocols around a tiny model; a chat answer is made of the question's own words."""

    def __init__(self, policy: Policy, lie: Lie | None, port: HeldPort) -> None:
        self.lie, self.count = lie, 0
        super().__init__(policy, port=port)

    def start(self) -> None:
        super().start()
        assert self._http is not None
        vars(self._http)["handle_error"] = lambda *_: None  # a client that leaves is no news

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        lie = self.lie
        if lie is None or about(handler.path, body) != lie.about:
            return super().reply(handler, body)
        self.count += 1
        if self.count != lie.first and not (lie.lasting and self.count > lie.first):
            return super().reply(handler, body)
        self.requests.append(handler.path)
        with self._lock:
            status, data = self._answer(handler.path, body)
        if lie.wire is None:
            assert lie.change is not None
            data = lie.change(data)
        raw = json.dumps(data).encode()
        if lie.wire is not None:
            try:
                lie.wire(handler, raw)
            except OSError:  # the client has left
                handler.close_connection = True
            return None
        return send(handler, raw, status)

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/v1/chat/completions":
            return 200, {**completion("14" if body["model"] == "judge" else f"I count {len(said(body)) % 7} of them.")}
        return super()._answer(path, body)


def send(handler: BaseHTTPRequestHandler, raw: bytes, status: int = 200, **headers: str) -> None:
    """An ordinary response; names of headers are written with `_` for `-`."""
    handler.send_response(status, "words")
    given = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    for name, value in (given | {k.replace("_", "-"): v for k, v in headers.items()}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(raw)
    handler.wfile.flush()


def torn(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection with a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())
    handler.close_connection = True
