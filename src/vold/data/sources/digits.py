"""`kind: digits`: problems of the demo world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vold.data.sources import MOST, Source, Tasks
from vold.data.worlds.digits import DigitTasks, Form, Split

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spec(Source):
    """Problems of the demo world."""

    split: Split
    """Splits share no row of digits; image forms of `select` and `test` share no handwriting."""
    form: Form = "text"
    """Digits written out, or shown as handwriting."""
    size: int = Field(gt=0, le=MOST)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(DigitTasks(self.split, self.form, self.size, self.seed), f"digits/{self.split}")
