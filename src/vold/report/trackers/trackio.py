"""trackio: a database on this machine (`trackio show --project vold`), or a Space with its own TRACKIO_SPACE_ID."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trackio
import yaml
from trackio.sqlite_storage import SQLiteStorage

from vold.report.trackers.tracking import LOOKS, PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.trackers.tracking import Row, TrackedStage


class Trackio:
    """A run of the project `vold`; it knows itself how far it has come."""

    def __init__(self, about: TrackedStage) -> None:
        self._run = trackio.init(
            PROJECT, about.name, about.group, config=yaml.safe_load(about.recipe), resume="allow",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self.next_step: int = self._run._next_step
        logs = SQLiteStorage.get_logs(PROJECT, about.name, run_id=self._run.id, scalar_only=True)
        self._looks = {(log["step"], name) for log in logs for name in log if name.startswith(LOOKS)}
        if self._run._is_local:
            alone = {"step", "timestamp"}.union(name for _, name in self._looks)
            self.next_step = max((log["step"] for log in logs if not log.keys() <= alone), default=-1) + 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, without the evaluation that a stage had ended with before it was given more steps."""
        self._run.log({name: v for name, v in values.items() if (step, name) not in self._looks}, step)

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """A table at its step."""
        self._run.log({name: trackio.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])}, step)

    def close(self) -> None:
        """Wait until the sending thread has stored everything."""
        self._run.finish()


def open_tracker(about: TrackedStage) -> Trackio:
    """Begin or go on with a run."""
    return Trackio(about)
