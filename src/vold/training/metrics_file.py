"""`metrics.jsonl` of a training stage: what the trackers are told as well, kept for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.run.files import append_jsonl, bad_row, cut_rows, read_records, remove_rows
from vold.run.metrics import METRICS, ROWS, refuse_gaps

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.metrics import DistillRow, SftRow


class MetricsFile:
    """`metrics.jsonl` of a stage.

    Args:
        directory: the stage's.
        start: the step that comes next; rows that a killed run has written from there on are dropped.

    Raises:
        CheckpointError: the row of a step before it is damaged or gone.

    Attributes:
        rows: of the steps before `start`.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.file = directory / METRICS
        self.rows: list[SftRow | DistillRow] = []
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
        self.rows += rows[:start]

    def log(self, row: SftRow | DistillRow) -> None:
        """Append the row and flush it to disk."""
        append_jsonl(self.file, [row])
