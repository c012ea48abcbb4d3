"""A part of `make faults`: the same faults, fewer of each kind."""

from __future__ import annotations

import pytest

from faults.__main__ import KINDS, every, run
from faults.frame import load

QUICK = 16
"""Faults of each kind here, spread evenly over all of them."""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind: str) -> None:
    load()
    faults = every(kind)
    some = faults[:: max(1, len(faults) // QUICK)]
    assert len(some) >= QUICK
    assert {f.name: o.note for f, o in zip(some, run(some), strict=True) if o.verdict == "lost"} == {}
