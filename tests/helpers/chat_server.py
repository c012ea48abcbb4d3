"""A real HTTP server on this machine that speaks the chat protocol and fails when a test says so."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from vold.engines.chat_api import EndpointReply, EndpointSampler
from vold.run.recipe import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    Answer = Callable[[dict[str, Any]], "dict[str, Any] | tuple[int, str] | tuple[int, str, dict[str, str]] | None"]


def completion(text: str | None, *, finish: str = "stop", tokens: int = 3, **message: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens},
    }


def said(body: dict[str, Any]) -> str:
    """The text of the last turn of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


class ChatServer:
    """Answers with what `answer(body)` returns: a completion, (status, text[, headers]), or None to hang up.

    `bodies` and `headers` are those of every request so far. Use as a context manager; `stop` kills it early.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer, self.bodies, self.headers = answer, list[dict[str, Any]](), list[dict[str, str]]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append({**body, "path": self.path})
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                reply = server.answer(body)
                if reply is None:
                    self.close_connection = True
                    return
                status, text, extra = 200, "", dict[str, str]()
                if isinstance(reply, dict):
                    text = json.dumps(reply)
                elif len(reply) == 2:
                    status, text = reply
                else:
                    status, text, extra = reply
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text.encode())), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()


def chat_client(*urls: str, first_wait: float = 0.0, model: str = "m", **options: Any) -> EndpointSampler:
    """A client of these servers that does not wait between its tries."""
    made = EndpointSampler(Endpoint(urls=urls, model=model, **options))
    made.first_wait = first_wait
    return made


def one_by_one(batches: Iterator[list[EndpointReply]]) -> Generator[EndpointReply, None, None]:
    """Replies that come in batches, one after another."""
    with contextlib.closing(batches):  # type: ignore[type-var]
        for batch in batches:
            yield from batch
