r"""Multiple choice: the option letters in the box, and nothing outside it.

There is no search through free text and no random fallback. Both are common elsewhere and both pay for answers that
were never given: "I am unsure" holds an option I, and "A triangle, so D" an option A.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import UNREADABLE, verdict
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

LETTERS = "ABCDEFGHIJKL"
"""The option letters: MMMU-Pro has up to twelve options."""

MAX_CHOICE_CHARS = 2000
"""A longer box is not read: no option text is that long."""

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mathbb|bf|rm|mbox)\b")
_PREFIX = re.compile(r"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)s?\s*(?:is|are)?\s*:?\s*(?=[(\[a-l])", re.I)
_LABEL = re.compile(r"\(\s*([a-l])\s*\)|\[\s*([a-l])\s*\]|([a-l])\s*(?:[.:)](?!(?-i:[a-z]))|$)", re.I)
_LATER_LABEL = re.compile(r"(?<![A-Za-z])(?:\([A-L]\)|[A-L]\s*[.:)])")
_SEVERAL = re.compile(r"\s*(?:,|;|&|\band\b|\s)\s*")


def option_letters(text: str) -> frozenset[str] | None:
    r"""Read the option letters in the content of a box; None if it is not clear which they are.

    Reads "C", "c", "(C)", "C.", "C) foo", "C: foo", "\text{C}", "Option C", and several letters as "A, C", "A and C",
    "A C" or, in upper case and alphabetical order, "AC". A hedge ("A or B") and a box that labels several options with
    text are None.

    Example:
        >>> option_letters(r"\text{(B)}")
        frozenset({'B'})
    """
    if len(text) > MAX_CHOICE_CHARS:
        return None
    bare = _WRAPPER.sub(" ", fold_latex(text))
    bare = squeeze(re.sub(r"[{}$*~]|\\(?:left|right|[(){}\[\],;:! ])", " ", bare))
    bare = _PREFIX.sub("", bare, count=1) if _PREFIX.match(bare) else bare
    several = _letters_only(bare)
    if several is not None:
        return several
    label = _LABEL.match(bare)
    if label is None:
        return None
    rest = bare[label.end() :]
    if _LATER_LABEL.search(rest):
        return None
    return frozenset(letter.upper() for letter in label.groups() if letter)


def fold_latex(text: str) -> str:
    r"""Turn LaTeX blanks and escaped separators into plain ones, so that "A,\ C" reads like "A, C"."""
    return re.sub(r"\\(?:quad|qquad|,|;|:|!| )", " ", text).replace(r"\&", "&")


def _letters_only(bare: str) -> frozenset[str] | None:
    parts = [part for part in _SEVERAL.split(bare) if part]
    names = [re.sub(r"^[(\[]\s*|\s*[)\].:]+$", "", part) for part in parts]
    if names and all(len(name) == 1 and name.upper() in LETTERS for name in names):
        return frozenset(name.upper() for name in names)
    word = bare.strip("()[]{}. ")
    if 1 < len(word) <= len(LETTERS) and all(c in LETTERS for c in word) and list(word) == sorted(set(word)):
        return frozenset(word)
    return None


@grader("choice")
class ChoiceGrader:
    r"""Marks a response right when the boxed option letters are those of the reference, as a set.

    Example:
        >>> ChoiceGrader()(r"\boxed{C. 15 cm}", "C").score
        1.0
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        expected = option_letters(reference)
        if expected is None:
            return Grade(0.0, answer, f"{UNREADABLE} reference: no option letter")
        found = option_letters(answer)
        if found is None:
            return Grade(0.0, answer, f"{UNREADABLE}: no option letter in the box")
        return verdict(found == expected, ", ".join(sorted(found)))
