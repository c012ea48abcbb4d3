r"""Exact match of the boxed text: the outcome reward of the VOLD paper (0 or 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import UNREADABLE, verdict
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish


@grader("exact")
class ExactGrader:
    r"""Marks a response right when its boxed text is the reference, up to blanks and Unicode forms.

    Blanks are stripped and collapsed, full-width digits and Unicode minus signs are folded. Case counts, and so does
    every other difference: "1/2" is not "0.5".

    Example:
        >>> ExactGrader()(r"so \boxed{ 17 }", "17").score
        1.0
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        found = squeeze(answer)
        if not found:
            return Grade(0.0, "", f"{UNREADABLE}: empty box")
        return verdict(found == squeeze(reference), found)
