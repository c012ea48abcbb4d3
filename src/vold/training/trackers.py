"""Where the rows of a training stage go as they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vold.run.files import append_jsonl, bad_row, cut_rows, read_records, remove_rows
from vold.run.metrics import METRICS, ROWS, refuse_gaps

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.metrics import DistillRow, SftRow


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

    Raises:
        CheckpointError: the row of a step before it is damaged or gone.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.file = directory / METRICS
        if not start:
            remove_rows(self.file)
            return
        mend = (
            f"put {self.file} back from a copy, or delete {directory}/step-* and the stage begins with its first step"
        )
        rows = read_records(self.file, ROWS[directory.name], mend=mend)
        refuse_gaps((row.step for row in rows), self.file, mend)
        if len(rows) < start:
            raise bad_row(self.file, len(rows) + 1, f"no row, and the state is of step {start}", mend=mend)
        cut_rows(self.file, start)

    def log(self, row: SftRow | DistillRow) -> None:
        """Append the row and flush it to disk."""
        append_jsonl(self.file, [row])


def open_trackers(directory: Path, start: int) -> list[Tracker]:
    """The trackers of a stage that goes on with step `start`."""
    return [MetricsFile(directory, start)]
