"""The parent's side of the workers, of the math grader and of rewards of the user's own: start them, share them, kill
one that overruns, replace it."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import vold
from vold.errors import VoldError
from vold.graders.outcome import CRASH, TIME_OUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORKERS = 2
"""How many processes compare at the same time. The second is started when two threads ask at once."""

START_LIMIT_SECONDS = 120.0
"""How long a worker may take to start. Usually about a quarter of a second."""

STUCK_LIMIT_SECONDS = 120.0
"""How long a worker may take in wall-clock time. Its own limit is in CPU time; this is for one that does not run."""

CACHED_VERDICTS = 4096

MATH = ("vold.graders.mathematics.worker",)
"""The module that a math worker runs; arguments of it would follow."""

_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


class WorkerPool:
    """A few worker processes, shared by all threads of this process, and the verdicts they gave.

    A pair is compared once: a verdict is remembered, and who asks for one that is being worked out waits for it. That
    holds for a time-out as well, which is counted in CPU time and so does not hang on how busy the machine is.

    `subprocess` is used rather than `multiprocessing`, because that needs an importable `__main__` and is forbidden
    inside daemonic processes such as the workers of a data loader. A forked child never touches its parent's workers:
    it starts its own.

    Args:
        time_limit: seconds of CPU time for one request.
        memory_limit: bytes of address space of a worker.
        command: the module that a worker runs, and what follows its limits.
        patience: seconds of wall-clock time for one request; `STUCK_LIMIT_SECONDS` if absent.
    """

    def __init__(
        self, time_limit: float, memory_limit: int, command: Sequence[str] = MATH, patience: float | None = None
    ) -> None:
        self._made_of = time_limit, memory_limit, command, patience
        self._workers = [_Worker(*self._made_of) for _ in range(WORKERS)]
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.Semaphore(WORKERS)
        self._idle = list(self._workers)
        self._known: collections.OrderedDict[tuple[str, str], Future[str]] = collections.OrderedDict()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [pid for pid in (worker.pid for worker in self._workers) if pid is not None]

    def compare(self, reference: str, answer: str) -> str:
        """Return the worker's note; "grader time-out" or "grader crash" if it gives none.

        A worker that dies is replaced and asked once more: the first death may have come from outside.

        Raises:
            VoldError: no worker can be started at all.
        """
        key = (reference, answer)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                mine = self._known[key] = Future()
                while len(self._known) > CACHED_VERDICTS:
                    self._known.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            note = str(self.ask({"reference": reference, "answer": answer})["note"])
        except BaseException as problem:
            self._forget(key)
            mine.set_exception(problem)
            raise
        if note.startswith((CRASH, f"{TIME_OUT}:")):  # these may have come from outside
            self._forget(key)
        mine.set_result(note)
        return note

    def close(self) -> None:
        """End the workers and forget the verdicts. The next pair starts a worker."""
        with self._lock:
            self._known.clear()
            for worker in self._idle:
                worker.stop()

    def _forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._known.pop(key, None)

    def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """A worker's reply; {"note": "grader time-out"} or {"note": "grader crash ..."} if it gives none.

        Raises:
            VoldError: no worker can be started at all.
        """
        with self._free:
            with self._lock:
                worker = self._idle.pop()  # the one used last: a single thread needs one process only
            try:
                return worker.ask(request)
            finally:
                with self._lock:
                    self._idle.append(worker)

    def _after_fork(self) -> None:
        """In a forked child: let go of the parent's workers and pipes without disturbing them."""
        for worker in self._workers:
            worker.let_go()
        self._workers = [_Worker(*self._made_of) for _ in range(WORKERS)]
        self._reset()


class _Worker:
    """One worker process, used by one thread at a time."""

    def __init__(self, time_limit: float, memory_limit: int, command: Sequence[str], patience: float | None) -> None:
        self._arguments = [command[0], str(time_limit), str(memory_limit), *command[1:]]
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup: weakref.finalize[Any, Any] | None = None
        self._buffer, self._ready = b"", False

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        limit = STUCK_LIMIT_SECONDS if self._patience is None else self._patience
        for _ in range(2):
            self._ensure_ready()
            try:
                self._write(request)
                return self._read(limit)
            except TimeoutError:
                self.stop()
                return {"note": f"{TIME_OUT}: no answer within {limit:.0f} s"}
            except (OSError, EOFError):
                if self.stop() in (-signal.SIGPROF, -signal.SIGXCPU):
                    with contextlib.suppress(OSError):
                        self._start()  # it gets ready while the caller goes on
                    return {"note": TIME_OUT}
        return {"note": f"{CRASH}: the worker died or ran out of memory"}

    def stop(self) -> int | None:
        """End the process, if one runs; return its exit status."""
        process, self._process, self._ready = self._process, None, False
        if self._cleanup is not None:
            self._cleanup.detach()
            self._cleanup = None
        if process is None:
            return None
        return _end(process)

    def let_go(self) -> None:
        if self._cleanup is not None:
            self._cleanup.detach()
        if self._process is not None:
            self._process.returncode = 0  # not ours to wait for
            _close_pipes(self._process)

    def _ensure_ready(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.stop()
        problem = ""
        for _ in range(2):  # a worker that was killed from outside while it started gets a second chance
            if self._ready:
                return
            problem = self._try_start()
        if not self._ready:
            raise VoldError(
                "the worker process of a grader cannot start",
                where=sys.executable,
                got=problem,
                fix="install this package with what it needs (mpmath) for that interpreter",
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
            self.stop()
        return str(reply.get("note"))

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
        )
        self._process, self._buffer, self._ready = process, b"", False
        self._cleanup = weakref.finalize(self, _end, process)

    def _write(self, message: Mapping[str, object]) -> None:
        # A worker that is ready waits for a line, so what is more than the 64 KiB that a pipe holds is read at once.
        left = memoryview(json.dumps(message).encode("ascii") + b"\n")
        while left:
            left = left[self._pipe("stdin").write(left) :]

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


def _environment() -> dict[str, str]:
    """Return an environment in which the worker finds the same packages, and hashes the same in every run."""
    root = str(Path(vold.__file__).resolve().parent.parent)
    paths = [path for path in sys.path if path and os.path.exists(path)]
    if root not in paths:
        paths.append(root)
    added = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **added}


def _end(process: subprocess.Popen[bytes]) -> int | None:
    """Kill a process that may have ended by itself; return its exit status."""
    with contextlib.suppress(OSError):
        process.kill()
    _close_pipes(process)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process.wait(timeout=10)
    return process.returncode


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
