"""Where the rows of a training stage go as they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vold.run.files import append_jsonl, keep_rows, read_jsonl

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.metrics import DistillRow, SftRow

METRICS = "metrics.jsonl"


class Tracker(Protocol):
    """Takes the metrics of every step. One more is a class in this file and its line in `open_trackers`."""

    def log(self, row: SftRow | DistillRow) -> None:
        """Take the metrics of a step; steps come in order, and only from the first of several processes."""
        ...


class MetricsFile:
    """`metrics.jsonl` of a stage.

    Args:
        directory: the stage's.
        start: the step that comes next; rows that a killed run has written from there on are dropped.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.file = directory / METRICS
        keep_rows(self.file, [r for r in read_jsonl(self.file) if r["step"] < start])

    def log(self, row: SftRow | DistillRow) -> None:
        """Append the row and flush it to disk."""
        append_jsonl(self.file, [row])


def open_trackers(directory: Path, start: int) -> list[Tracker]:
    """The trackers of a stage that goes on with step `start`."""
    return [MetricsFile(directory, start)]
