"""Progress for people: a bar on a terminal, a line every tenth of the way anywhere else."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

console = Console(highlight=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")
"""Of several processes the first speaks for all."""


class Bar:
    """Use as a context manager; call `advance` after each unit of work.

    Args:
        label: what is being done.
        total: units in all.
        start: units already done when the work begins (a resumed run).
    """

    def __init__(self, label: str, total: int, start: int = 0) -> None:
        self.label, self.total, self.done = label, total, start
        self._began, self._from, self._printed = time.monotonic(), start, start
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        if sys.stdout.isatty():
            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._rich.start()
            self._task = self._rich.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` more as done; `note` is shown beside the bar."""
        self.done += units
        if self._rich is not None:
            self._rich.update(self._task, completed=self.done, note=note)
        elif self.done - self._printed >= self.total / 10 or self.done >= self.total:
            self._printed = self.done
            seconds = time.monotonic() - self._began
            left = seconds / max(1, self.done - self._from) * (self.total - self.done)
            console.print(
                f"{self.label}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left  {note}".rstrip()
            )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._rich is not None:
            self._rich.stop()
