"""Whether a response has read its pictures right, where a world knows what they show."""

from __future__ import annotations

import re


def read_right(shows: str, response: str) -> bool | None:
    """Whether what a response says it has read is what the pictures show; None where it does not say.

    `shows` is a word and what is right behind it (`vold.types.Task.shows`). What stands behind the first such word of
    the response, up to a mark of punctuation, is what was read.

    Example:
        >>> read_right("digits 3 5", "<think> digits 3 6 ; 3 + 6"), read_right("digits 3 5", "8")
        (False, None)
    """
    head, _, right = shows.partition(" ")
    found = re.search(rf"(?<!\S){re.escape(head)}((?:\s+[^\s;,.<]+)+)", response) if head else None
    return None if found is None else found[1].split() == right.split()
