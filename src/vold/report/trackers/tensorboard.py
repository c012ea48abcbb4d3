"""TensorBoard: event files in `RUN/tensorboard/STAGE`; look at them with `tensorboard --logdir RUN/tensorboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from vold.report.text import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.trackers.tracking import Row, TrackedStage


class TensorBoard:
    """Event files cannot be mended, so those of an earlier start go and the metrics so far are written again."""

    next_step = 0

    def __init__(self, about: TrackedStage) -> None:
        folder = about.run / "tensorboard" / about.stage
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("recipe", f"```yaml\n{about.recipe}```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, each under the name of its metric."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """A Markdown table under Text."""
        cells = [["" if v is None else str(v) for v in row.values()] for row in rows]
        self._writer.add_text(name, markdown_table(list(rows[0]), cells), step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


def open_tracker(about: TrackedStage) -> TensorBoard:
    """Begin the event file of a stage."""
    return TensorBoard(about)
