"""The parent's side of the math worker: start it, ask it, kill it when it overruns, replace it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any

import vold
from vold.errors import VoldError
from vold.graders.outcome import CRASH, TIME_OUT

START_LIMIT_SECONDS = 120.0
"""How long a worker may take to import Math-Verify. Usually about one second."""

ANSWERS_PER_WORKER = 5000
"""A worker is replaced after so many answers, so that what a computer algebra system caches cannot pile up."""

_clients: weakref.WeakSet[WorkerClient] = weakref.WeakSet()


class WorkerClient:
    """One worker process, shared by all threads of this process.

    `subprocess` is used rather than `multiprocessing`, because that needs an importable `__main__` and is forbidden
    inside daemonic processes such as the workers of a data loader. A forked child never touches its parent's worker:
    it starts its own.
    """

    def __init__(self, time_limit: float, memory_limit: int) -> None:
        self._time_limit, self._memory_limit = time_limit, memory_limit
        self._ids = itertools.count()
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup: weakref.finalize[Any, Any] | None = None
        self._buffer = b""
        self._ready = False
        self._answered = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, None if there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def compare(self, reference: str, answer: str) -> str:
        """Return the worker's note; "grader time-out" or "grader crash" if it gives none.

        A worker that dies is replaced and asked once more: the first death may have come from outside.

        Raises:
            VoldError: no worker can be started at all (Math-Verify missing or broken).
        """
        with self._lock:
            for _ in range(2):
                self._ensure_ready()
                message = self._ask(reference, answer)
                if message is not None:
                    return message
                self._stop()
            return f"{CRASH}: the worker died or ran out of memory"

    def close(self) -> None:
        """End the worker, if one is running."""
        with self._lock:
            self._stop()

    def _ask(self, reference: str, answer: str) -> str | None:
        number = next(self._ids)
        try:
            self._write({"id": number, "reference": reference, "answer": answer})
            reply = self._read(self._time_limit)
        except TimeoutError:
            self._stop()
            with contextlib.suppress(OSError):
                self._start()  # it gets ready while the caller goes on
            return TIME_OUT
        except (OSError, EOFError):
            return None
        self._answered += 1
        return str(reply["note"]) if reply.get("id") == number else None

    def _ensure_ready(self) -> None:
        if self._answered >= ANSWERS_PER_WORKER or (self._process is not None and self._process.poll() is not None):
            self._stop()
        problem = ""
        for _ in range(2):  # a worker that was killed from outside while it started gets a second chance
            if self._ready:
                return
            problem = self._try_start()
        if not self._ready:
            raise VoldError(
                "the worker process of the math grader cannot start",
                where=sys.executable,
                got=problem,
                fix="install Math-Verify with an ANTLR runtime: pip install 'math-verify[antlr4_13_2]'",
            )

    def _try_start(self) -> str:
        try:
            if self._process is None:
                self._start()
            reply = self._read(START_LIMIT_SECONDS)
        except (OSError, EOFError) as failure:  # includes TimeoutError
            reply = {"ready": False, "note": f"{type(failure).__name__} while it started"}
        self._ready = bool(reply.get("ready"))
        if not self._ready:
            self._stop()
        return str(reply.get("note"))

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "vold.graders.mathematics.worker",
            str(self._time_limit),
            str(self._memory_limit),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
        )
        self._process, self._buffer, self._ready, self._answered = process, b"", False, 0
        self._cleanup = weakref.finalize(self, _end, process)

    def _stop(self) -> None:
        process, self._process, self._ready = self._process, None, False
        if self._cleanup is not None:
            self._cleanup.detach()
            self._cleanup = None
        if process is not None:
            _end(process)

    def _write(self, message: dict[str, object]) -> None:
        # ASCII-only JSON of two capped strings: well below the 64 KiB a pipe holds, so this cannot block.
        self._pipe("stdin").write(json.dumps(message).encode("ascii") + b"\n")

    def _read(self, limit: float) -> dict[str, object]:
        deadline = time.monotonic() + limit
        pipe = self._pipe("stdout")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    raise EOFError
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, object] = json.loads(line)
        return reply

    def _pipe(self, name: str) -> IO[bytes]:
        pipe: IO[bytes] | None = getattr(self._process, name, None)
        if pipe is None:
            raise EOFError
        return pipe

    def _after_fork(self) -> None:
        """In a forked child: let go of the parent's worker and pipes without disturbing them."""
        process = self._process
        if self._cleanup is not None:
            self._cleanup.detach()
        if process is not None:
            process.returncode = 0  # not ours to wait for
            _close_pipes(process)
        self._reset()


def _environment() -> dict[str, str]:
    """Return an environment in which the worker finds the same packages, and hashes the same in every run."""
    root = str(Path(vold.__file__).resolve().parent.parent)
    paths = [path for path in sys.path if path and os.path.exists(path)]
    if root not in paths:
        paths.append(root)
    added = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **added}


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
    _close_pipes(process)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process.wait(timeout=10)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
