"""A hub on this machine: it lists and gives out data sets as huggingface.co does, as far as a client asks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ABOUT = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class HubServer:
    """Serves `root/OWNER/NAME` as the data set OWNER/NAME, at one commit. `asked` are the files that were given out.

    Use as a context manager; `url` is what HF_ENDPOINT names.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def commit(repo: str) -> str:
        """The commit of a data set's one version."""
        return hashlib.sha1(repo.encode()).hexdigest()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(hub._reply(self.path, given=True)[1])

            def do_HEAD(self) -> None:
                repo, content = hub._reply(self.path)
                self.send_response(200 if repo else 404)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header(
                    "X-Repo-Commit" if repo else "X-Error-Code", hub.commit(repo) if repo else "RepoNotFound"
                )
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def _reply(self, url: str, *, given: bool = False) -> tuple[str, bytes]:
        """The data set that a URL is of, and the content; empty for what is not there."""
        path = unquote(urlsplit(url).path)
        for form in (_ABOUT, _TREE, _FILE):
            found = form.fullmatch(path)
            if found is None or not self._known(found[1], found[2]):
                continue
            if form is not _FILE:
                return found[1], json.dumps(self._about(found[1]) if form is _ABOUT else self._tree(found[1])).encode()
            file = self.root / found[1] / found[3]
            if file.is_file():
                self.asked += [found[3]] * given
                return found[1], file.read_bytes()
        return "", b""

    def _known(self, repo: str, revision: str | None) -> bool:
        return (self.root / repo).is_dir() and revision in (None, "main", self.commit(repo))

    def _about(self, repo: str) -> dict[str, object]:
        files = [{"rfilename": entry["path"]} for entry in self._tree(repo)]
        return {"id": repo, "sha": self.commit(repo), "private": False, "tags": [], "downloads": 0, "siblings": files}

    def _tree(self, repo: str) -> list[dict[str, object]]:
        folder = self.root / repo
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        return [
            {
                "type": "file",
                "path": f.relative_to(folder).as_posix(),
                "size": f.stat().st_size,
                "oid": hashlib.sha1(f.read_bytes()).hexdigest(),
            }
            for f in files
        ]
