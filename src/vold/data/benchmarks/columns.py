"""What the adapters share: cells that must be there, gold answers freed of their dirt, options, image markers."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from vold.data.files.images import image_values, to_image
from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.data.files.read import Row

LETTERS = string.ascii_uppercase[:12]


class MissingColumn(DataError):
    """The data has another layout than the benchmark: not a bad row, but the wrong file."""


def cell(row: Row, *names: str) -> Any:
    """The first of these columns that the row has.

    Raises:
        MissingColumn: it has none of them.
    """
    for name in names:
        if name in row.values:
            return row.values[name]
    raise MissingColumn(
        f"there is no column {' or '.join(map(repr, names))}",
        where=row.where,
        got=", ".join(sorted(row.values)),
        fix="is this the right benchmark, config and version of the data?",
    )


def text_cell(row: Row, *names: str) -> str:
    """A column as text; empty where it holds nothing."""
    value = cell(row, *names)
    return "" if value is None else str(value)


def tags(row: Row, **columns: str) -> dict[str, str]:
    """Columns to group results by, where the row has them."""
    found = {tag: row.values.get(column) for tag, column in columns.items()}
    return {tag: str(value) for tag, value in found.items() if value not in (None, "")}


def pictures(row: Row, *names: str) -> tuple[Image, ...]:
    """The pictures of these columns, in order; columns that are absent or empty are passed over.

    Raises:
        DataError: a picture that cannot be decoded.
    """
    values = [v for name in names for v in image_values(row.values.get(name))]
    return tuple(to_image(v, row.open_path) for v in values)


def numbered_pictures(row: Row) -> tuple[Image, ...]:
    """The pictures of `image_1` to `image_7`; without gaps, so that marker n is picture n.

    Raises:
        DataError: a gap, or a picture that cannot be decoded.
    """
    found = [row.values.get(f"image_{n}") for n in range(1, 8)]
    while found and found[-1] in (None, ""):
        found.pop()
    if any(v in (None, "") for v in found):
        raise DataError("a picture is missing between others")
    return tuple(to_image(v, row.open_path) for v in found)


def letter_answer(row: Row, options: Sequence[str], *names: str) -> str:
    """The gold letter, checked against the number of options (0: they are in the picture).

    Raises:
        DataError: it is no letter, or there is no such option.
    """
    answer = text_cell(row, *names).strip().strip("().").upper()
    if len(answer) != 1 or answer not in (LETTERS[: len(options)] if options else LETTERS):
        raise DataError("the gold answer is no option", got=f"{answer!r} of {len(options)} options")
    return answer
