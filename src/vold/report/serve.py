"""`vold show RUN --serve`: the report as a page that follows its run, on this machine alone.

The server listens on 127.0.0.1. Its addresses begin with a random word that is printed once, and a request whose Host
is another name is refused, so that neither another user of the machine nor another page in the browser can read a run.
What it answers with is made from the runs that it was started for; no address is turned into a path.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from vold.errors import DataError, VoldError
from vold.report.browser import step_rows, whole
from vold.report.listing import listed_runs
from vold.report.run_page import COMPARED, RESULTS, content, moving
from vold.report.search import SearchedStep
from vold.report.write import render
from vold.run.rollouts import load_rollout, load_rollouts, stored_step, stored_steps
from vold.run.state import failure, is_at_work, is_run, runs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vold.run.rollouts import StoredRollout

    Asked = Mapping[str, str]
    Runs = Mapping[str, Path]
    Answer = tuple[str, bytes]
    """The kind of an answer and its content."""

MOST_AT_ONCE = 64
"""Rollouts of one request."""
KEPT_TEXTS = 1 << 28
"""Bytes of what is kept of steps for the next search: of some thirty million tokens."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
WATCHED = (
    "recipe.yaml", "traces/summary.json", "align/align.json", "balance/summary.json", "sft/metrics.jsonl",
    "distill/metrics.jsonl", "sft/evals.jsonl", "distill/evals.jsonl", "sft/ended.json", "distill/ended.json",
    "sft/final", "distill/final", "eval/results.json",
)  # fmt: skip
"""What the moving part of a page, and a line of a list, is made from."""


class _Absent(Exception):
    """Nothing is shown at this address."""


class Server(ThreadingHTTPServer):
    """Serves the run in a folder, or all runs in it.

    Args:
        folder: a run directory, or a folder of runs.
        port: 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.token = folder, secrets.token_urlsafe(24)
        self.texts: dict[tuple[Path, str], SearchedStep] = {}
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = -1  # an answer goes out in one piece: its end would wait for the browser to have acknowledged its head
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer, or say what is wrong in one line."""
        try:
            kind, body = self._answer()
            self._send(HTTPStatus.OK, kind, body)
        except VoldError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode(errors="replace"))
        except _Absent:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"nothing here")

    def _answer(self) -> Answer:
        hosts = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in hosts:
            raise _Absent
        address = urlsplit(self.path)
        token, slash, rest = address.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            raise _Absent
        asked = dict(parse_qsl(address.query, keep_blank_values=True))
        runs, alone = runs_in(self.server.folder), is_run(self.server.folder)
        what = RESULTS if rest.endswith(RESULTS) else rest.rpartition("/")[2]
        above = rest.removesuffix(what)
        if rest in _LIST and not alone:
            return _LIST[rest](self.server.folder.resolve().name, runs, asked)
        of = {"": self.server.folder} if alone else {f"{name}/": run for name, run in runs.items()}
        run = of.get(unquote(above))
        if run is None or what not in _PARTS:
            raise _Absent
        return _PARTS[what](self.server, run, asked)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        told = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in (HEADERS | told).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token."""


def _list(name: str, runs: Runs, asked: Asked) -> Answer:
    return "text/html", render("list.html.j2", {"name": name, "runs": listed_runs(runs), "server": True}).encode()


def _list_now(name: str, runs: Runs, asked: Asked) -> Answer:
    return _news(runs, asked, lambda: render("list_now.html.j2", {"runs": listed_runs(runs)}))


_LIST = {"": _list, "now": _list_now}
"""What stands behind the token where a folder of runs is shown."""


def _page(server: Server, run: Path, asked: Asked) -> Answer:
    above = "" if run == server.folder else "../" * (len(run.relative_to(server.folder).parts))
    more = {"server": True, "rollouts": {"steps": {}, "values": {}}, "above": above}
    return "text/html", render("run_page.html.j2", content(run) | more).encode()


def _results(server: Server, run: Path, asked: Asked) -> Answer:
    return _written(run / RESULTS)


def _compared(server: Server, run: Path, asked: Asked) -> Answer:
    return _written(run / COMPARED)


def _written(page: Path) -> Answer:
    if not page.is_file():
        raise _Absent
    return "text/html", page.read_bytes()


def _now(server: Server, run: Path, asked: Asked) -> Answer:
    """The news of a run, and stored steps with a stamp of each file."""
    steps = {step: _stamp(file) for step, file in stored_steps(run).items()}
    results = _stamp(run / "eval" / "results.json")
    return _news({"": run}, asked, lambda: render("run_live.html.j2", moving(run)), results=results, steps=steps)


def _news(runs: Runs, asked: Asked, html: Callable[[], str], **more: object) -> Answer:
    """What has changed since the version that the page has, and `more`."""
    told = [
        (name, is_at_work(run), failure(run), [_stamp(run / file) for file in WATCHED]) for name, run in runs.items()
    ]
    version = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    return _json({"version": version, **more} | ({} if asked.get("have") == version else {"html": html()}))


def _step(server: Server, run: Path, asked: Asked) -> Answer:
    """The rollouts of a step, to list. Their texts are made meanwhile: a search is not to wait for them."""
    file = stored_step(run, _number(asked.get("step")))
    stored = load_rollouts(file)
    _texts(server, file, stored)
    return _json(step_rows(stored))


def _rollouts(server: Server, run: Path, asked: Asked) -> Answer:
    """Whole rollouts, asked for as `at=STEP.PLACE,...`."""
    found = {}
    for key in asked.get("at", "").split(",")[:MOST_AT_ONCE]:
        step, _, place = key.partition(".")
        found[key] = whole(load_rollout(stored_step(run, _number(step)), _number(place)))
    return _json(found)


def _find(server: Server, run: Path, asked: Asked) -> Answer:
    """Places of the rollouts in whose problem or response a text stands, by step: of one step, or of all."""
    steps = [_number(asked["step"])] if "step" in asked else stored_steps(run)
    return _json({step: _texts(server, stored_step(run, step)).find(asked.get("text", "")) for step in steps})


def _texts(server: Server, file: Path, stored: Sequence[StoredRollout] | None = None) -> SearchedStep:
    """What is searched of a step, made once; `stored` is what the file holds, where it was read already."""
    key = file, _stamp(file)
    found = server.texts.get(key)
    if found is None:
        found = SearchedStep(load_rollouts(file) if stored is None else stored)
        server.texts[key] = found
        while len(server.texts) > 1 and sum(one.size for one in [*server.texts.values()]) > KEPT_TEXTS:
            server.texts.pop(next(iter(server.texts)), None)
    return found


_PARTS: dict[str, Callable[[Server, Path, Asked], Answer]] = {
    "": _page, "report.html": _page, "now": _now, "step": _step, "rollouts": _rollouts, "find": _find,
    RESULTS: _results, COMPARED: _compared,
}  # fmt: skip
"""What stands behind the token, and behind a run's name. The pages are where they lie in a run, so that their links to
each other hold."""


def _number(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise DataError("this is no number of a step or a rollout", got=str(text)[:40])
    return int(text)


def _stamp(file: Path) -> str:
    """What differs between two writings of a file; empty where there is none."""
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns}-{found.st_size}"


def _json(value: object) -> Answer:
    return "application/json", json.dumps(value, separators=(",", ":")).encode()
