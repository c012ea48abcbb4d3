"""Weights & Biases. Its own settings (WANDB_PROJECT, WANDB_MODE=offline, WANDB_DIR ...) apply."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import wandb
import yaml

from vold.report.trackers.tracking import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.trackers.tracking import Row, TrackedStage


class WandB:
    """A run under the stage's own id; the server says how far it has come."""

    def __init__(self, about: TrackedStage) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=about.name, group=about.group, job_type=about.stage,
            id=about.id, resume="allow", config=yaml.safe_load(about.recipe), dir=str(about.run),
        )  # fmt: skip
        self.next_step: int = self._run.step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Curves."""
        self._run.log(dict(values), step=step)

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """A table at its step."""
        made = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({name: made}, step=step)

    def close(self) -> None:
        """Upload what is under way."""
        self._run.finish()


def open_tracker(about: TrackedStage) -> WandB:
    """Begin or go on with a run."""
    return WandB(about)
