"""A run that is told to stop ends in order: at the next instruction, with what can be saved saved."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON = 0.05
"""Seconds until a stop that got lost in a callback is tried again."""

CURSOR = "\x1b[?25h"
"""Shows a terminal's cursor again, which a progress bar hides."""


class Stopped(KeyboardInterrupt):
    """A signal has told the process to stop."""


class Stop:
    """While it is entered, signals raise `Stopped`; a second one ends the process at once.

    Of several processes none is touched: whoever started them ends them, and nothing could be saved.

    Args:
        name: of the process, for what it says.

    Attributes:
        signal: the one that came; None so far.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status of a process that this signal has ended."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Stop:
        if os.environ.get("WORLD_SIZE", "1") == "1" and threading.current_thread() is threading.main_thread():
            ours = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]  # nohup stays nohup
            self._before = {s: signal.signal(s, self._come) for s in ours}
            self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Give the signals back; a process that was told to stop keeps them, as it is about to end."""
        if self._before and self.signal is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            sys.unraisablehook = self._hook

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            self._say("stopping in order; once more stops it at once")
            raise Stopped
        self._say("stopped at once; the same command goes on from what is stored")
        os._exit(self.status)

    def _say(self, words: str) -> None:
        cursor = CURSOR if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}\n{self.name}: {words}\n".encode())

    def _lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finalizer or a callback; a stop that is dropped comes again."""
        if not issubclass(unraisable.exc_type, Stopped) or self.signal is None:
            self._hook(unraisable)
            return
        again, self.signal = self.signal, None
        threading.Timer(SOON, os.kill, (os.getpid(), again)).start()
