"""Work in a child process that is killed at one of its writes, and the weights that runs leave behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vold.run.console import console


def in_a_process_killed_at(operation: int, work: Callable[[], Any]) -> bool:
    """Run `work` in a child that kills itself at its n-th flush or rename; True if it lived to the end."""
    child = os.fork()
    if child == 0:
        try:
            console.quiet = True
            left = operation

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **kwargs)

                return call

            os.fsync = counted(os.fsync)
            Path.replace = counted(Path.replace)  # type: ignore[method-assign]
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def weights_of(directory: Path) -> bytes:
    return (directory / "final" / "model.safetensors").read_bytes()
