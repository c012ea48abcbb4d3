r"""Counts: how many there are of something in a picture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
"""Numbers that are read as words."""

_NUMBER = re.compile(r"(?<![\w.,-])(?:\d{1,9}|" + "|".join(WORDS) + r")(?![\w-]|[.,]\d)", re.IGNORECASE)
_ANY = re.compile(r"\d")


def read_count(text: str) -> int | None:
    """The one whole number in a text, in digits or as a word up to twenty; None where there is none, or several.

    Example:
        >>> read_count("12 apples"), read_count("Three"), read_count("2 or 3"), read_count("2.5")
        (12, 3, None, None)
    """
    found = _NUMBER.findall(text)
    rest = _NUMBER.sub("", text)
    if len(found) != 1 or _ANY.search(rest):
        return None
    word = found[0].lower()
    return WORDS.index(word) if word in WORDS else int(word)


@grader("count")
class CountGrader:
    r"""Scores a count by how far it is off: 1 less |count - reference| / reference, and no less than 0.

    A reference of 0 is right or wrong. The box holds one whole number, with or without what is counted.

    Example:
        >>> CountGrader()(r"\boxed{6 dogs}", "8").score
        0.75
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        wanted, found = read_count(squeeze(reference)), read_count(squeeze(answer))
        if wanted is None:
            return Grade(0.0, answer, f"{UNREADABLE} reference: no count")
        if found is None:
            return Grade(0.0, answer, f"{UNREADABLE}: no count")
        off = abs(found - wanted)
        score = max(0.0, 1 - off / max(wanted, 1))
        return Grade(score, str(found), EQUAL if not off else f"{DIFFERENT}: off by {off}")
