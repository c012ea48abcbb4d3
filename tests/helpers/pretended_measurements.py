"""The measurements of `make gpu` at their smallest on the pretended device (`pretended_cuda.run`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.__main__ import MEASUREMENTS
from benchmarks.gpu.pair import TINY, Given
from vold.run.console import console

ALONE = ("resume",)
"""What forks, which a process that has begun to work on a card can not."""


def measured(home: str) -> dict[str, Any]:
    """Each measurement's figures by its name."""
    console.quiet = True
    given = Given("cuda", TINY, Path(home))
    return {name: work(given) for name, work in MEASUREMENTS.items() if name not in ALONE}
