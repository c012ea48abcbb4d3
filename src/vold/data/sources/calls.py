"""`kind: calls`: problems of the demo world for tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vold.data.sources import MOST, Source, Tasks
from vold.data.worlds.calls import CallTasks, Split

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spec(Source):
    """Problems of the demo world for tools; the recipe needs an `environment` with fenced calls."""

    split: Split
    """Splits share no problem."""
    size: int = Field(gt=0, le=MOST)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(CallTasks(self.split, self.size, self.seed), f"calls/{self.split}")
