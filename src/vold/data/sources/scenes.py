"""`kind: scenes`: problems over pictures of coloured shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vold.data.sources import Source, Tasks
from vold.data.worlds.scenes import Form, SceneTasks, Split

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spec(Source):
    """Problems over pictures of coloured shapes, from the package easy-vqa (`vold.data.worlds.scenes`)."""

    split: Split
    """Splits share no problem and no picture."""
    form: Form = "text"
    """Pictures described, or shown."""
    size: int = Field(gt=0)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(SceneTasks(self.split, self.form, self.size, self.seed), f"scenes/{self.split}")
