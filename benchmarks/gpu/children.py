"""Work in children of a process that has everything loaded: what one of them breaks is its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

Figures = dict[str, Any]


def in_child(work: Callable[[], Figures], seconds: float) -> Figures:
    """What `work` returns in a child, as JSON; or an `error`: what it raised or died of, or that time was up."""
    return Child(work).told(seconds)


class Child:
    """Work that has begun in a child of this process.

    Raises:
        RuntimeError: this process has touched the card, and so none of its children can.
    """

    def __init__(self, work: Callable[[], Figures]) -> None:
        if torch.cuda.is_initialized():
            raise RuntimeError("CUDA is in use in this process: a forked one could not use it")
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe(duplex=False)
        self._first = multiprocessing.parent_process() is None
        self._child = context.Process(target=_tell, args=(work, there, self._first))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of ours is at work
            self._child.start()
        there.close()

    def told(self, seconds: float) -> Figures:
        """Wait so long at most, and end it; see `in_child`."""
        try:
            if self._here.poll(seconds):
                told: Figures = json.loads(self._here.recv_bytes())
                return told
            return {"error": f"cut off after {seconds:.0f} s"}
        except EOFError:
            self._child.join()
            return {"error": f"its process ended with status {self._child.exitcode}, negative for a signal"}
        finally:
            if self._first and self._child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)  # it, and children of its own
            self._child.kill()
            self._child.join()


def _tell(work: Callable[[], Figures], there: Connection, first: bool) -> None:
    if first:
        os.setpgid(0, 0)
    try:
        told = work()
    except Exception as error:
        traceback.print_exc()
        told = {"error": f"{type(error).__name__}: {error}"[:1000]}
    there.send_bytes(json.dumps(told).encode())
    there.close()


def distributions() -> dict[str, str]:
    """Packages that have been imported in this process, with their versions."""
    names = importlib.metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    found = {d for name in loaded for d in names.get(name, ())}
    return {name: importlib.metadata.version(name) for name in sorted(found)}
