"""Work in a child process that is killed in the middle, and the weights that runs leave behind."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from faults.frame import in_a_child
from vold.training import learner
from vold.training.optim import apply_update
from vold.training.state_writer import StateWriter


def killer(count: int) -> Callable[[], None]:
    """What kills this process when it is called for the n-th time, from whichever of its threads."""
    calls = itertools.count(1)  # which no switch of threads can cut in two

    def called() -> None:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    return called


def after(called: Callable[[], object], real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, with a call of `called` before it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        called()
        return real(*args, **kwargs)

    return call


def write_states_at_once() -> None:
    """Which state a killed stage leaves must not depend on how quick its writer is; for a child process."""
    begin = StateWriter.begin

    def begin_and_end(self: StateWriter, step: int, beside: Mapping[str, bytes] = MappingProxyType({})) -> None:
        begin(self, step, beside)
        self.settle(wait=True)

    StateWriter.begin = begin_and_end  # type: ignore[method-assign]


def in_a_process_killed_at(operation: int, work: Callable[[], Any]) -> bool:
    """Run `work` in a child that kills itself at its n-th flush or rename; True if it lived to the end."""

    def killed() -> int:
        operated = killer(operation)
        os.fsync = after(operated, os.fsync)
        Path.replace = after(operated, Path.replace)  # type: ignore[method-assign]
        work()
        return 0

    ended = in_a_child(killed, seconds=600)
    assert ended.code in (0, -signal.SIGKILL), ended.said
    return ended.code == 0


def weights_of(directory: Path) -> bytes:
    return (directory / "final" / "model.safetensors").read_bytes()


def interrupted_at_update(count: int, work: Callable[[], Any]) -> None:
    """Run `work`, in which Ctrl-C comes in the place of the n-th update of the weights."""
    calls = itertools.count(1)

    def stop(*args: Any, **kwargs: Any) -> float:
        if next(calls) == count:
            raise KeyboardInterrupt
        return apply_update(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learner, "apply_update", stop)
        work()
