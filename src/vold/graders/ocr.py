r"""Text that was read off a picture, by its edit distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

MAX_CHARS = 5_000
"""A longer text is not compared."""


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions and substitutions of a character that make one text of the other (Levenshtein).

    A column of the table of distances is held as two whole numbers with a bit a row, those of the rows that go up and
    down by one (Myers 1999, in Hyyrö's form): a long text takes as many steps as it has characters.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for i, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << i
    full, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = full, 0, len(one)
    for character in other:
        same = places.get(character, 0)
        across = (((same & up) + up) ^ up) | same | down
        rises, falls = down | ~(across | up) & full, up & across
        distance += bool(rises & last) - bool(falls & last)
        rises, falls = rises << 1 | 1, falls << 1
        up, down = (falls | ~(same | down | rises)) & full, rises & (same | down) & full
    return distance


@grader("ocr")
class OcrGrader:
    r"""Scores text that was read: 1 less the edit distance to the reference, divided by the longer length.

    Blanks are collapsed and Unicode forms folded first; capitals count.

    Example:
        >>> OcrGrader()(r"\boxed{EXIT 12}", "EXIT 72").score
        0.8571428571428572
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        if len(answer) > MAX_CHARS:
            return Grade(0.0, answer[:200], f"{UNREADABLE}: more than {MAX_CHARS} characters")
        found, wanted = squeeze(answer), squeeze(reference)
        longer = max(len(found), len(wanted))
        if not wanted or longer > MAX_CHARS:
            return Grade(0.0, answer[:200], f"{UNREADABLE} reference: empty, or too long")
        distance = edit_distance(found, wanted)
        return Grade(1 - distance / longer, found, EQUAL if not distance else f"{DIFFERENT}: {distance} edits")
