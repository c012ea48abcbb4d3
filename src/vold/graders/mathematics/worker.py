"""The process that compares mathematical answers: one JSON object per line in, one per line out.

Started by `vold.graders.math` as a module, with SECONDS and BYTES. The parent owns the wall clock and kills this
process; the limits set here (CPU time per answer, address space) also hold if the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from typing import BinaryIO

SPARE_CPU_SECONDS = 5


def _limit_memory(limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _limit_cpu(seconds: float) -> None:
    """Let the kernel end this process if one answer takes much longer than the parent would wait."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + SPARE_CPU_SECONDS
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _send(channel: BinaryIO, message: dict[str, object]) -> None:
    channel.write(json.dumps(message).encode() + b"\n")
    channel.flush()


def main(seconds: float, memory: int) -> None:
    """Answer requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up between the answers
    try:
        from vold.graders.mathematics import equal as judge

        judge.warm_up()
    except Exception as problem:
        _send(channel, {"ready": False, "note": f"{type(problem).__name__}: {problem}"})
        return
    _limit_memory(memory)
    _send(channel, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_cpu(seconds)
        try:
            note = judge.compare(request["reference"], request["answer"])
        except MemoryError:
            os._exit(1)
        except (Exception, RecursionError) as problem:
            note = f"unreadable: {type(problem).__name__}"
        _send(channel, {"id": request["id"], "note": note})


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
