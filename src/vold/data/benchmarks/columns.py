"""What the adapters share: cells that must be there, gold answers freed of their dirt, options, image markers."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from vold.data.files.cells import clean_gold, listed
from vold.data.files.images import image_values, to_image
from vold.data.files.markers import numbered
from vold.errors import DataError
from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vold.data.files.read import Row

# Blanks are counted, so that a search through a long text stays linear.
_BLANK = r"\s{0,8}"
_OPTIONS_HEAD = re.compile(rf"(?:^|\s{{1,8}}|(?<=[?.:]))(?:Options|Choices){_BLANK}:{_BLANK}", re.IGNORECASE)
_FIRST_LINE = re.compile(r"\n(?=[ \t]{0,8}(?:\(A\)|A[).:])\s)")
_FIRST_LABEL = re.compile(rf"{_BLANK}(\(A\)|A{_BLANK}[).:]){_BLANK}")
_GAPS = (rf"\n{_BLANK}", rf"[,;]{_BLANK}", r"\s")


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
    """The pictures of `image_1` to `image_9`; without gaps, so that marker n is picture n. VLMEvalKit's tables have all
    of them in `image`.

    Raises:
        DataError: a gap, or a picture that cannot be decoded.
    """
    if "image_1" not in row.values and "image" in row.values:
        return pictures(row, "image")
    found = [row.values.get(f"image_{n}") for n in range(1, 10)]
    while found and found[-1] in (None, ""):
        found.pop()
    if any(v in (None, "") for v in found):
        raise DataError("a picture is missing between others")
    return tuple(to_image(v, row.open_path) for v in found)


def lettered_options(row: Row, name: str) -> tuple[str, ...]:
    """Options in a list, in a list written as text, or in columns of their own.

    Raises:
        DataError: there are none, or more than have letters.
    """
    held = None if name in row.values else column_options(row)
    found = tuple(numbered(o) for o in listed(cell(row, name))) if held is None else held
    if not 0 < len(found) <= len(LETTERS):
        raise DataError("no options, or more than have letters", got=str(len(found)))
    return found


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    r"""Take the options off the end of a question; a question without them is returned as it is.

    They stand after "Options:" or "Choices:", or each on a line of its own, as "(A) ..", "A) ..", "A. .." or "A: ..".
    On one line they are parted by commas or semicolons, else by blanks, and a blank follows the label.
    Labels count in the order of letters only: an option's text may hold ", D: " itself.

    Example:
        >>> split_options("Which?\nOptions: A: red, or blue, B: green")
        ('Which?', ('red, or blue', 'green'))
        >>> split_options("How many?\nChoices:\n(A) 40.7\n(B) 74")
        ('How many?', ('40.7', '74'))
    """
    starts = [*reversed([*_OPTIONS_HEAD.finditer(question)]), *_FIRST_LINE.finditer(question)]
    for start in starts:
        texts = _labelled(question[start.end() :])
        if texts:
            return question[: start.start()], texts
    return question, ()


def _labelled(tail: str) -> tuple[str, ...]:
    """The texts of two options or more, the first of which begins here."""
    first = _FIRST_LABEL.match(tail)
    if first is None:
        return ()
    for gap in _GAPS:
        found = [first]
        for letter in LETTERS[1:]:
            label = re.escape(first[1].replace("A", letter))
            apart = "" if gap is _GAPS[0] else r"(?=\s|$)"
            after = re.compile(f"{gap}{label}{apart}{_BLANK}").search(tail, found[-1].end())
            if after is None:
                break
            found.append(after)
        if len(found) > 1:
            ends = [m.start() for m in found[1:]] + [len(tail)]
            return tuple(tail[m.end() : end].strip() for m, end in zip(found, ends, strict=True))
    return ()


def column_options(row: Row) -> tuple[str, ...] | None:
    """Options in columns A, B, C .., as VLMEvalKit's tables have them, up to the last that is filled; None without such
    columns."""
    if not {"A", "B"} <= set(row.values):
        return None
    found = list(itertools.takewhile(lambda letter: letter in row.values, LETTERS))
    while found and row.values[found[-1]] is None:
        found.pop()
    return tuple(numbered(text_cell(row, letter)) for letter in found)


def letter_answer(row: Row, options: Sequence[str], *names: str) -> str:
    """The gold letter, that of the option which the gold answer spells out too; any other gold as it is written.

    There need be no such option: whether an item can be marked all the same is for the protocol to say.
    """
    gold = text_cell(row, *names).strip()
    letter = clean_gold(gold).strip("().").upper()
    if names_option(letter):
        return letter
    return LETTERS[options.index(gold)] if options.count(gold) == 1 else gold


def names_option(gold: str, options: Sequence[str] = ()) -> bool:
    """Whether a gold answer is the letter of one of the options, or of any where there are none (in the picture)."""
    return len(gold) == 1 and gold in (LETTERS[: len(options)] if options else LETTERS)
