"""Progress for people: a bar on a terminal, a line every tenth of the way anywhere else."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from vold.errors import VoldError, clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


class _Output:
    """Standard output as it is now. A run outlives it: once it fails, what would be printed is dropped."""

    failed: OSError | None = None

    def write(self, text: str) -> None:
        self._try("write", text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, name: str, *args: str) -> None:
        stream: IO[str] | None = sys.stdout  # None where it was closed before the start
        if stream is None or self.failed is not None:
            return
        try:
            getattr(stream, name)(*args)
        except OSError as error:
            self.failed = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what Python itself still has to write

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


class _Console(Console):
    """Prints text as text: no markup, and nothing that a terminal would take for a command."""

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*args, **options):
            yield Segment(text if control else clean(text), style, control)


_output = _Output()
console = _Console(
    file=_output,  # type: ignore[arg-type]  # of a file, rich uses what is there
    markup=False,
    emoji=False,
    highlight=False,
    soft_wrap=True,
    quiet=os.environ.get("RANK", "0") != "0",
)
"""Of several processes the first speaks for all."""


def print_next(verb: str, *words: str) -> None:
    """The last line of a verb: the command that comes next."""
    console.print(f"next: {shlex.join([command(), verb, *words])}")


def command() -> str:
    """What starts this program: `vold`, or how it was started where the shell does not find that, as `make` does."""
    found = Path(sys.argv[0]).name != "vold" or shutil.which("vold") is not None
    return "vold" if found else sys.argv[0]


def lost() -> VoldError | None:
    """What kept the output from being written, for the end of a verb; None too where its reader has left, as `head`
    does."""
    if _output.failed is None or isinstance(_output.failed, BrokenPipeError):
        return None
    return VoldError(
        "not all that was to be printed could be written; the work itself is done",
        where="standard output",
        got=str(_output.failed),
        fix="free space where it goes, and repeat the command",
    )


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
        if console.is_terminal:
            self._rich = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
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
        elif self.done - self._printed >= self.total / 10 > 0 or self._printed < self.total <= self.done:
            self._printed = self.done
            seconds = time.monotonic() - self._began
            left = seconds / max(1, self.done - self._from) * (self.total - self.done)
            console.print(
                f"{self.label}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left  {note}".rstrip()
            )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._rich is not None:
            self._rich.stop()
