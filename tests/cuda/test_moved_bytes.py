"""What moves between a card and its host, against the plan."""

from __future__ import annotations

from pathlib import Path

import pretended_cuda


def test_bytes_that_move_in_each_phase_are_those_that_are_planned(tmp_path: Path) -> None:
    """A step but the first: before it there are no moments, and the teacher is copied to the host once."""
    found = pretended_cuda.run("pretended_memory:moved", home=str(tmp_path))
    teacher, optimizer = found["planned"]["teacher scoring"], found["planned"]["update"] // 2
    first, second = found["steps"]
    assert second == {"sample": [0, 0], "teacher": [teacher, 0], "update": [optimizer, optimizer], "save": [0, 0]}
    assert first == {"sample": [0, teacher], "teacher": [teacher, 0], "update": [0, optimizer], "save": [0, 0]}
    assert teacher > 0 and optimizer > 0
    # A phase's peak is its own: what leaves as it begins belongs to the one before.
    assert 0 <= found["peaks"]["save"] < optimizer and found["peaks"]["update"] > optimizer
    assert teacher <= found["peaks"]["teacher"] < teacher + optimizer
