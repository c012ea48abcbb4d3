"""`kind: digits`: problems of the demo world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from vold.data.sources import MOST, Source, Tasks
from vold.data.worlds.digits import ROWS, DigitTasks, Form, Split
from vold.errors import ConfigError

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
    rows: tuple[Annotated[int, Field(ge=3)], Annotated[int, Field(le=5)]] | None = None
    """Fewest and most digits of a row, which the demo world's models know from 3 to 5; 3 and 4 if absent."""

    @model_validator(mode="after")
    def _fewest_first(self) -> Spec:
        if self.rows is not None and self.rows[0] > self.rows[1]:
            raise ConfigError(
                "no row has so many digits at least and so few at most", got=str(self.rows), fix="swap them"
            )
        return self

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(DigitTasks(self.split, self.form, self.size, self.seed, self.rows or ROWS), f"digits/{self.split}")
