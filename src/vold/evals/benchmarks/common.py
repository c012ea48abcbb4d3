"""What the adapters share: cells that must be there, gold answers freed of their dirt, options, image markers."""

from __future__ import annotations

import ast
import json
import re
import string
from typing import TYPE_CHECKING, Any

from vold.errors import DataError
from vold.evals.images import image_values, to_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.evals.read import Row

LETTERS = string.ascii_uppercase[:12]
_MARKER = re.compile(r"<\s*image\s*_?\s*(\d{1,2})\s*>", re.IGNORECASE)


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


def markers(text: str) -> str:
    """Every spelling of an image marker as `<image 1>`.

    Example:
        >>> markers("see <image1> and < IMAGE_2 >")
        'see <image 1> and <image 2>'
    """
    return _MARKER.sub(lambda m: f"<image {int(m[1])}>", text)


def listed(value: Any) -> list[str]:
    """A list that may be written as text, in Python's or JSON's way; [] for nothing.

    Raises:
        DataError: text that is no list.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        for read in (ast.literal_eval, json.loads):
            try:
                parsed = read(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(parsed, (list, tuple)):
                return [str(v) for v in parsed]
        raise DataError("the options are not a list", got=value[:100])
    return [str(v) for v in value]


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


def clean_gold(text: str) -> str:
    r"""A gold answer without the dirt that data sets carry: lost backslashes, dollar signs, a box, blanks, `{degrees}`.

    Example:
        >>> clean_gold("\x0crac{36}{13}"), clean_gold("$\\boxed{11 }$"), clean_gold("69{degrees}")
        ('\\frac{36}{13}', '11', '69')
    """
    # "\frac" and "\text" written without escaping become a form feed or a tab and the rest of the word.
    text = text.replace("\x0crac", r"\frac").replace("\text{", r"\text{").replace("\times", r"\times")
    text = text.strip()
    for _ in range(3):
        if len(text) > 1 and text[0] == text[-1] == "$":
            text = text.strip("$").strip()
        boxed = re.fullmatch(r"\\boxed\{(.*)\}", text, re.DOTALL)
        text = boxed[1].strip() if boxed and _balanced(boxed[1]) else text
    return re.sub(r"\s*(?:\{degrees\}|\\?\^\{?\\circ\}?|°)$", "", text).strip()


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0
