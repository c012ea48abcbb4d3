"""MLflow. Its own settings (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME ...) apply."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Metric

from vold.report.trackers.tracking import LOOKS, PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.trackers.tracking import Row, TrackedStage

TAG = "vold.id"


class MLflow:
    """A run that is found again by a tag with the stage's own id."""

    def __init__(self, about: TrackedStage) -> None:
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        id_ = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        found = self._client.search_runs([id_], filter_string=f"tags.`{TAG}` = '{about.id}'")
        tags = {TAG: about.id, "group": about.group}
        run = found[0] if found else self._client.create_run(id_, tags=tags, run_name=about.name)
        self._id = run.info.run_id
        if not found:
            self._client.log_text(self._id, about.recipe, "recipe.yaml")
        last = {name: self._client.get_metric_history(self._id, name)[-1].step for name in run.data.metrics}
        self._looks = {(step, name) for name, step in last.items() if name.startswith(LOOKS)}
        self.next_step: int = max((s for name, s in last.items() if not name.startswith(LOOKS)), default=-1) + 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, without the evaluation that a stage had ended with before it was given more steps."""
        now = int(time.time() * 1000)
        new = [Metric(name, value, now, step) for name, value in values.items() if (step, name) not in self._looks]
        self._client.log_batch(self._id, metrics=new)

    def table(self, step: int, name: str, rows: Sequence[Row]) -> None:
        """A table as MLflow reads it: columns and rows in JSON."""
        table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        self._client.log_text(self._id, json.dumps(table), f"{name.replace(' ', '-')}/step-{step:06d}.json")

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id)


def open_tracker(about: TrackedStage) -> MLflow:
    """Begin or go on with a run."""
    return MLflow(about)
