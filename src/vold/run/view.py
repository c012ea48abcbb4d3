"""What a run has stored so far, read and never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from vold.errors import DataError
from vold.run.as_run import RECIPE
from vold.run.files import read_json, read_records
from vold.run.looks import EvalRow, read_evals
from vold.run.metrics import MEND_METRICS, METRICS, DistillRow, SftRow
from vold.run.recipe import Recipe, load_recipe
from vold.run.results import Results
from vold.run.rollouts import StoredRollout, load_rollouts, stored_step, stored_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Run:
    """A run directory. Everything is read from its files when it is asked for.

    Raises:
        DataError: no stage has been started there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / RECIPE).is_file():
            raise DataError(
                "there is no run here",
                where=str(self.path),
                got=f"no {RECIPE}",
                fix="give a run directory: run.dir of a recipe that was started",
            )

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def recipe(self) -> Recipe:
        """The recipe of the stage that was started last.

        Raises:
            ConfigError: another version of vold wrote it.
        """
        return load_recipe(self.path / RECIPE)

    @overload
    def metrics(self, stage: Literal["sft"]) -> Sequence[SftRow]: ...

    @overload
    def metrics(self, stage: Literal["distill"]) -> Sequence[DistillRow]: ...

    def metrics(self, stage: Literal["sft", "distill"]) -> Sequence[SftRow] | Sequence[DistillRow]:
        """The steps of a stage so far; none before it was started. docs/metrics.md says what the values are.

        Raises:
            CheckpointError: they are damaged, or another version of vold wrote them.
        """
        file = self.path / stage / METRICS
        if stage == "sft":
            return read_records(file, SftRow, whole=True, mend=MEND_METRICS)
        return read_records(file, DistillRow, whole=True, mend=MEND_METRICS)

    def evaluations(self, stage: Literal["sft", "distill"]) -> Sequence[EvalRow]:
        """What a stage found of its model while it trained; none without `eval` in its section.

        Raises:
            CheckpointError: the rows are damaged, or another version of vold wrote them.
        """
        return read_evals(self.path / stage)

    @property
    def stored_steps(self) -> Mapping[int, Path]:
        """The steps of `distill` whose rollouts are stored, in order, with their files."""
        return stored_steps(self.path)

    def rollouts(self, step: int) -> Sequence[StoredRollout]:
        """All rollouts of a step of `distill`.

        Raises:
            DataError: they are not stored, or another version of vold wrote them.
        """
        return load_rollouts(stored_step(self.path, step))

    @property
    def results(self) -> Results:
        """What `vold eval` found.

        Raises:
            CheckpointError: it has not been run to its end, or by another version, or the file is damaged.
        """
        return read_json(self.path / "eval" / "results.json", Results)
