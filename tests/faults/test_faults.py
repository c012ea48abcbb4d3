"""A part of `make faults`: the same faults, fewer of each kind."""

from __future__ import annotations

import pytest

from faults.__main__ import KINDS, counts, every, run
from faults.frame import load

QUICK = 16
"""Faults of each kind here, spread evenly over all of them."""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    load()
    faults = every(kind)
    some = faults[:: max(1, len(faults) // QUICK)]
    outcomes = run(some)
    assert {f.name: o.note for f, o in zip(some, outcomes, strict=True) if o.verdict == "lost"} == {}
    assert counts(some, outcomes)[kind]["injected"] == len(some) >= min(QUICK, len(faults))
