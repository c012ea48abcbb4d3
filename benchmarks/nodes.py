"""Processes on pretended nodes of this machine, with the environment that torchrun gives them: forked from one that has
imported everything, which takes a fraction of the time."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import torch

from vold.engines.launch.server import HeldPort

if TYPE_CHECKING:
    from collections.abc import Callable


def fork(nodes: int, each: int, work: Callable[[], None]) -> int:
    """Run `work` in `each` processes on each of `nodes` nodes, one thread each. Returns how many failed; when one has,
    the others, which may wait for it, are ended."""
    port = HeldPort()
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.number), "WORLD_SIZE": str(nodes * each)}
    alive, failed = set[int](), 0
    sys.stdout.flush()
    for rank in range(nodes * each):
        pid = os.fork()
        if not pid:
            here = {"RANK": rank, "LOCAL_RANK": rank % each, "LOCAL_WORLD_SIZE": each}
            os.environ |= world | {name: str(value) for name, value in here.items()}
            os._exit(_status(work))
        alive.add(pid)
    while alive:
        pid, status = os.wait()
        alive.discard(pid)
        failed += bool(status)
        for other in alive if status else ():
            os.kill(other, signal.SIGTERM)
    port.free()
    return failed


def _status(work: Callable[[], None]) -> int:
    """Of a process that ends after its work."""
    torch.set_num_threads(1)
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
