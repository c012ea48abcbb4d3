"""A real browser for tests of pages: an installed Chromium, or the one inside the package PyQt6-WebEngine.

`VOLD_BROWSER` names an executable of the Chromium family; `VOLD_BROWSER=none` skips these tests, and nothing else does.
"""

from __future__ import annotations

import fcntl
import importlib.util
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Action = str | Callable[[], None]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35, "Home": 36}
"""Keys that write nothing, with the numbers that browsers know them by."""
PATIENCE = 120.0
"""Seconds after which a silent browser has failed."""


def evaluate(
    page: Path | str,
    steps: Sequence[Action],
    *,
    hashes: Sequence[str] = ("",),
    width: int = 1200,
    dark: bool = False,
) -> list[list[Any]]:
    """Open a page once for each of `hashes`, run JavaScript expressions in it one after the other, return their values.

    `page` is a file or an address, `width` the window's in CSS pixels. An expression that starts with `key:` is a key
    to press: `key:ArrowDown`. A function is called here, between the expressions.
    """
    wanted = os.environ.get("VOLD_BROWSER", "")
    if wanted == "none":
        pytest.skip("VOLD_BROWSER=none")
    program = wanted or next((found for name in NAMES if (found := shutil.which(name))), None)
    address = page if isinstance(page, str) else page.resolve().as_uri()
    urls = [address + h for h in hashes]
    if program is not None:
        return _by_pipe(program, urls, steps, width, dark)
    if importlib.util.find_spec("PyQt6") and importlib.util.find_spec("PyQt6.QtWebEngineWidgets"):
        if any(not isinstance(step, str) or step.startswith("key:") for step in steps):
            pytest.skip("keys are pressed in an installed Chromium")
        return _by_qt(urls, [str(step) for step in steps], width, dark)
    pytest.fail(
        "no browser to test the page in\n"
        "  fix: install chromium, or `pip install PyQt6-WebEngine`; VOLD_BROWSER=path/to/chromium names one, "
        "VOLD_BROWSER=none goes without these tests"
    )


def _by_pipe(program: str, urls: Sequence[str], steps: Sequence[Action], width: int, dark: bool) -> list[list[Any]]:
    """Drive a browser by the DevTools protocol over the two pipes it expects as its files 3 and 4."""
    # Moved out of the way of files 3 and 4, which the shell below fills and closes.
    to_browser, ours, mine, from_browser = (_above_nine(fd) for pipe in (os.pipe(), os.pipe()) for fd in pipe)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser} {to_browser}<&- {from_browser}>&-'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, program, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            return [_Session(ours, mine).visit(url, steps, width, dark) for url in urls]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours)
            os.close(mine)


def _above_nine(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


class _Session:
    def __init__(self, out: int, back: int) -> None:
        self.out, self.back, self.numbers, self.buffer = out, back, itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self.session: dict[str, str] = {}

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = json.dumps({"id": number, "method": method, "params": params, **self.session}).encode() + b"\0"
        while message:
            message = message[os.write(self.out, message) :]
        while (reply := self.read()).get("id") != number:
            self.events.append(reply)
        if "error" in reply:
            pytest.fail(f"{method}: {reply['error']}")
        return dict(reply["result"])

    def read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                pytest.fail(f"the browser said nothing for {PATIENCE:g} s")
            piece = os.read(self.back, 1 << 20)
            if not piece:
                pytest.fail("the browser ended; it may lack a library: start it by hand to see")
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(line))

    def wait(self, method: str) -> None:
        while all(e.get("method") != method for e in self.events):
            self.events.append(self.read())

    def visit(self, url: str, steps: Sequence[Action], width: int, dark: bool) -> list[Any]:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")
        values: list[Any] = []
        for step in steps:
            if not isinstance(step, str):
                step()
                values.append(None)
                continue
            if step.startswith("key:"):
                self.press(step.removeprefix("key:"))
                values.append(None)
                continue
            answer = self.call("Runtime.evaluate", expression=step, returnByValue=True, awaitPromise=True)
            if "exceptionDetails" in answer:
                pytest.fail(f"{step}: {answer['exceptionDetails']}")
            values.append(answer["result"].get("value"))
        return values

    def press(self, key: str) -> None:
        """A key as a person presses it: Tab moves on, a letter is typed."""
        name, code = (key, KEYS[key]) if key in KEYS else ("", ord(key.upper()))
        text = {"Enter": "\r"}.get(key, "" if name else key)
        about = {"key": key, "windowsVirtualKeyCode": code, "text": text, "code": name}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


QT = """\
import json, sys
from PyQt6.QtCore import QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication
urls, width, steps = json.loads(sys.stdin.read())
app, found, views = QApplication(["page"]), [], []
def visit():
    if len(views) == len(urls):
        print(json.dumps(found))
        app.quit()
        return
    view, left, values = QWebEngineView(), list(steps), []
    def go_on(ok):
        if not left:
            found.append(values)
            visit()
            return
        def keep(value):
            values.append(json.loads(value)[0])
            go_on(True)
        view.page().runJavaScript("JSON.stringify([" + left.pop(0) + "])", keep)
    view.resize(width, 900)
    view.loadFinished.connect(go_on)
    view.setUrl(QUrl(urls[len(views)]))
    view.show()
    views.append(view)
visit()
app.exec()
"""


def _by_qt(urls: Sequence[str], steps: Sequence[str], width: int, dark: bool) -> list[list[Any]]:
    """Drive the Chromium of Qt in a process of its own, without a display."""
    flags = f"--disable-gpu --no-sandbox --blink-settings=preferredColorScheme={0 if dark else 1}"
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "QTWEBENGINE_CHROMIUM_FLAGS": flags,
    }
    done = subprocess.run(
        [sys.executable, "-c", QT],
        input=json.dumps([list(urls), width, list(steps)]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"the browser of PyQt6-WebEngine ended with {done.returncode}: {done.stderr[-2000:]}")
    values = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(values, list)
    return values


if __name__ == "__main__":
    # Exit status 0 if a browser starts here and runs a script, or if none is wanted.
    if os.environ.get("VOLD_BROWSER") == "none":
        sys.exit(0)
    with tempfile.TemporaryDirectory() as home:
        page = Path(home) / "page.html"
        page.write_text("<!doctype html><title>page</title>", encoding="utf-8")
        try:
            started = evaluate(page, ["1 + 1"]) == [[2]]
        except (pytest.fail.Exception, OSError, subprocess.SubprocessError):
            started = False
    sys.exit(0 if started else 1)
