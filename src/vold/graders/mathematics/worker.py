"""The process that compares mathematical answers: one JSON object per line in, one per line out.

Started by `vold.graders.mathematics.client` as a module, with SECONDS of CPU time per pair and BYTES of memory. When a
pair takes more, the kernel ends this process, which works inside a library call too. The parent starts another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable


def _limit_memory(limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _send(channel: BinaryIO, message: dict[str, object]) -> None:
    channel.write(json.dumps(message).encode() + b"\n")
    channel.flush()


def serve(seconds: float, memory: int, open_: Callable[[], Callable[[Any], dict[str, object]]]) -> None:
    """Answer requests until standard input closes.

    Args:
        seconds: of CPU time for a request.
        memory: bytes of address space, once everything is loaded.
        open_: loads what answers a request; what it raises is told to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, and says so in its exit status
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up between the answers
    try:
        answer = open_()
    except Exception as problem:
        _send(channel, {"ready": False, "note": f"{type(problem).__name__}: {problem}"})
        return
    _limit_memory(memory)
    _send(channel, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = answer(request)
        except MemoryError:
            os._exit(1)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(channel, reply)


def main(seconds: float, memory: int) -> None:
    """Compare pairs of answers until standard input closes."""

    def comparing() -> Callable[[Any], dict[str, object]]:
        from vold.graders.mathematics import equal

        equal.warm_up()

        def compare(request: Any) -> dict[str, object]:
            try:
                return {"note": equal.compare(request["reference"], request["answer"])}
            except MemoryError:
                raise
            except (Exception, RecursionError) as problem:
                return {"note": f"unreadable: {type(problem).__name__}"}

        return compare

    serve(seconds, memory, comparing)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
