"""What the adapters share: cells that must be there, gold answers freed of their dirt, options, image markers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vold.data.files.cells import listed
from vold.data.files.images import image_values, to_image
from vold.data.files.markers import numbered
from vold.errors import DataError
from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.data.files.read import Row

_OPTIONS_IN_TEXT = re.compile(r"\n\s*Options:\s*(?=A\s*:)")
_NEXT_OPTION = re.compile(r"(?:^|,\s*)([A-L])\s*:\s*")


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
    """The pictures of `image_1` to `image_9`; without gaps, so that marker n is picture n.

    Raises:
        DataError: a gap, or a picture that cannot be decoded.
    """
    found = [row.values.get(f"image_{n}") for n in range(1, 10)]
    while found and found[-1] in (None, ""):
        found.pop()
    if any(v in (None, "") for v in found):
        raise DataError("a picture is missing between others")
    return tuple(to_image(v, row.open_path) for v in found)


def lettered_options(row: Row, name: str) -> tuple[str, ...]:
    """Options in a list, or in a list written as text.

    Raises:
        DataError: there are none, or more than have letters.
    """
    found = tuple(numbered(o) for o in listed(cell(row, name)))
    if not 0 < len(found) <= len(LETTERS):
        raise DataError("no options, or more than have letters", got=str(len(found)))
    return found


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    r"""Take "Options: A: .., B: .." off the end of a question; a question without them is returned as it is.

    Example:
        >>> split_options("Which?\nOptions: A: red, or blue, B: green")
        ('Which?', ('red, or blue', 'green'))
    """
    start = _OPTIONS_IN_TEXT.search(question)
    if start is None:
        return question, ()
    # Labels count in the order of letters only: an option's text may hold ", D: " itself.
    tail = question[start.end() :]
    found: list[re.Match[str]] = []
    for label in _NEXT_OPTION.finditer(tail):
        if len(found) < len(LETTERS) and label[1] == LETTERS[len(found)]:
            found.append(label)
    ends = [m.start() for m in found[1:]] + [len(tail)]
    texts = tuple(tail[m.end() : end].strip() for m, end in zip(found, ends, strict=True))
    return question[: start.start()], texts


def letter_answer(row: Row, options: Sequence[str], *names: str) -> str:
    """The gold letter, checked against the number of options (0: they are in the picture).

    Raises:
        DataError: it is no letter, or there is no such option.
    """
    answer = text_cell(row, *names).strip().strip("().").upper()
    if len(answer) != 1 or answer not in (LETTERS[: len(options)] if options else LETTERS):
        raise DataError("the gold answer is no option", got=f"{answer!r} of {len(options)} options")
    return answer
