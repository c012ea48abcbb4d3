"""Metrics go on with the step that the state is of, and no step before it may be missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from vold.errors import CheckpointError
from vold.run.files import read_jsonl, write_rows
from vold.run.metrics import SftRow
from vold.training.metrics_file import MetricsFile


def row(step: int) -> SftRow:
    return SftRow(step=step, loss=1.0, grad_norm=0.5, lr=0.1, tokens=3, seconds=0.0)


def steps(directory: Path) -> list[int]:
    return [r["step"] for r in read_jsonl(directory / "metrics.jsonl", whole=True)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tracker = MetricsFile(tmp_path / "sft", 0)
    for step in range(5):
        tracker.log(row(step))
    return tmp_path / "sft"


def test_rows_after_the_state_are_dropped_and_those_before_it_stay(directory: Path) -> None:
    MetricsFile(directory, 3).log(row(3))
    assert steps(directory) == [0, 1, 2, 3]
    MetricsFile(directory, 0).log(row(0))
    assert steps(directory) == [0]


@pytest.mark.parametrize(
    ("stored", "start", "line", "got"),
    [
        ([0, 1, 3, 4], 3, 3, "the row of step 3 where that of step 2 stands"),
        ([0, 1, 1, 2], 3, 3, "the row of step 1 where that of step 2 stands"),
        ([1, 0, 2], 3, 1, "the row of step 1 where that of step 0 stands"),
        ([0, 1], 3, 3, "no row, and the state is of step 3"),
        ([], 2, 1, "no row, and the state is of step 2"),
    ],
)
def test_a_gap_before_the_state_is_named(directory: Path, stored: list[int], start: int, line: int, got: str) -> None:
    file = directory / "metrics.jsonl"
    write_rows(file, [row(step) for step in stored])
    with pytest.raises(CheckpointError) as caught:
        MetricsFile(directory, start)
    assert (caught.value.where, caught.value.got) == (f"{file}: line {line}", got)
    assert "the stage begins with its first step" in caught.value.fix
    MetricsFile(directory, 0)  # so it does
    assert not file.exists()
