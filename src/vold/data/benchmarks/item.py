"""One question of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

Form = Literal["choice", "letters", "integer", "float", "list", "math", "text"]
"""What an answer is: one option of several; a set of letters (options may be in the picture); a whole number; a number
to `precision` decimals; a list of numbers; a mathematical expression; words."""

ProtocolName = Literal["rule", "vlmevalkit"]
"""`rule` needs no judge and marks what it cannot read as wrong; `vlmevalkit` asks as VLMEvalKit does and lets a judge
model extract the answer."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, as its row gives it, with the dirt of the row already handled.

    `question` and `options` keep their `<image 1>` markers (one spelling, numbered from 1 by column); `images` are in
    column order, so marker n is `images[n - 1]`. `answer` is the option letter for `choice`, letters joined by ", " for
    `letters`, plain text otherwise. `precision` counts decimals of a `float`. `query` is a prompt that the row itself
    carries (MathVista). `for_judge` is the
    question that a judge is shown, where it is another: in words where `question` leaves it to the picture (MathVerse),
    without its context (EMMA).
    `cluster` is shared by items that are not independent of each other.

    Example:
        >>> Item("mathvision", "7", "How many?", ("A. 1", "B. 2"), (), "B", "choice", cluster="7").tags
        {}
    """

    benchmark: str
    id: str
    question: str
    options: tuple[str, ...]
    images: tuple[Image, ...]
    answer: str
    form: Form
    cluster: str
    precision: int | None = None
    unit: str | None = None
    query: str | None = None
    for_judge: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
