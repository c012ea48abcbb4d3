"""How far student and teacher are apart after failed calls, read off stored rollouts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import drift
from stored import store_rows
from vold.data.worlds import calls


def stored(directory: Path, rows: list[dict[str, Any]]) -> Path:
    store_rows(directory / "rollouts", 0, rows)
    return directory


def test_gaps_of_stored_rollouts_by_hand(tmp_path: Path) -> None:
    tool, end, assistant, fail = drift.TOOL, drift.END, drift.ASSISTANT, calls.FAILED
    ids = [50, end, tool, fail, 60, assistant, 51, end, tool, 61, assistant, end]
    logp = [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0, -1.0, 0.0, 0.0, 0.0, -1.0]
    seen = [-1.5, -0.1, -9.0, -9.0, -9.0, -9.0, -2.5, -2.5, -9.0, -9.0, -9.0, -1.2]
    row = {"ids": ids, "logp": logp, "teacher_logp": seen}
    assert drift.own_tokens(ids) == [1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    steps = drift.gaps(row)
    assert [gap for gap, _ in steps] == pytest.approx([0.3, 1.0, 0.2])
    assert [failed for _, failed in steps] == [False, True, False]
    home = stored(tmp_path, [row, row | {"teacher_logp": None}])
    assert drift.drifted(home) == {"accuracy": 1.0, "n": 1}
    assert drift.first_gap(home) == {"value": pytest.approx(0.3), "n": 1}
    assert drift.gap_after_failure(home) == {"value": pytest.approx(1.0), "n": 1}
    assert drift.gap_after_success(home) == {"value": pytest.approx(0.2), "n": 1}


def test_runs_without_a_teacher_have_no_gaps(tmp_path: Path) -> None:
    home = stored(tmp_path, [{"ids": [50, drift.END], "logp": [-1.0, -1.0], "teacher_logp": None}])
    found = (drift.drifted(home), drift.first_gap(home), drift.gap_after_success(home), drift.gap_after_failure(home))
    assert found == (None,) * 4
