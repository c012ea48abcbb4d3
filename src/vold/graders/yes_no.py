r"""Questions that are answered by yes or no."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import UNREADABLE, verdict
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

_WORD = re.compile(r"(?:\\text\s*\{\s*)?(yes|no|true|false)\s*\}?(?:[.,;:!]|$)\s*", re.IGNORECASE)
_EITHER = re.compile(r"\b(?:yes|no|not|true|false|maybe|or)\b|n't\b|\?", re.IGNORECASE)
_MEANS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def read_yes_no(text: str) -> str | None:
    """`yes` or `no` where a text begins with that word (or with true or false) and does not take it back.

    Example:
        >>> read_yes_no("Yes, it is red."), read_yes_no("no or yes"), read_yes_no("nothing")
        ('yes', None, None)
    """
    found = _WORD.match(text)
    return None if found is None or _EITHER.search(text, found.end()) else _MEANS[found[1].lower()]


@grader("yes_no")
class YesNoGrader:
    r"""Marks a response right when its box says yes, or no, as the reference does; `true` and `false` are read too.

    Example:
        >>> YesNoGrader()(r"\boxed{No, it is blue.}", "no").score
        1.0
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        wanted, found = read_yes_no(squeeze(reference)), read_yes_no(squeeze(answer))
        if wanted is None:
            return Grade(0.0, answer, f"{UNREADABLE} reference: neither yes nor no")
        if found is None:
            return Grade(0.0, answer, f"{UNREADABLE}: neither yes nor no")
        return verdict(found == wanted, found)
