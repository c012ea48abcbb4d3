r"""Boxes in a picture: how far those in the answer cover those of the reference."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

MAX_CHARS = 10_000
"""A longer answer is not read."""
MOST = 50
"""More boxes than this are not compared: pairs are looked at one by one."""

_NUMBER = r"\s*-?\d{1,9}(?:\.\d{1,9})?\s*"
_BOX = re.compile(rf"\[({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER})\]")
_BARE = re.compile(rf"\(?({_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER})\)?")


class Corners(NamedTuple):
    """A box by its left, top, right and bottom side, in pixels or any other unit that both sides share."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """In units squared; 0 where the sides are the wrong way round."""
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)


def iou(one: Corners, other: Corners) -> float:
    """Area that two boxes share, divided by the area that they cover together.

    Example:
        >>> round(iou(Corners(0, 0, 2, 2), Corners(1, 0, 3, 2)), 4)
        0.3333
    """
    left, top = max(one.left, other.left), max(one.top, other.top)
    shared = Corners(left, top, min(one.right, other.right), min(one.bottom, other.bottom)).area
    together = one.area + other.area - shared
    return shared / together if together > 0 else 0.0


def read_boxes(text: str) -> list[Corners]:
    """Every `[left, top, right, bottom]` in a text, also within JSON; or four numbers that are the whole text.

    Example:
        >>> read_boxes('{"bbox_2d": [1, 2, 3, 4.5]}'), read_boxes("1, 2, 3, 4")
        ([Corners(left=1.0, top=2.0, right=3.0, bottom=4.5)], [Corners(left=1.0, top=2.0, right=3.0, bottom=4.0)])
    """
    whole = _BARE.fullmatch(text)
    found = [whole[1]] if whole else _BOX.findall(text)
    return [Corners(*map(float, one.split(","))) for one in found]


@grader("boxes")
class BoxesGrader:
    r"""Scores boxes `[left, top, right, bottom]` by their IoU with the reference's: the area that two share, divided by
    what they cover together.

    Of several boxes, each is matched with one of the reference at most, pairs of the highest IoU first; the score is
    the sum of the pairs' IoU, divided by the larger number of boxes. So a box too many costs as much as one too few.

    Example:
        >>> BoxesGrader()(r"\boxed{[0, 0, 2, 2]}", "[0, 0, 2, 4]").score
        0.5
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        if len(answer) > MAX_CHARS:
            return Grade(0.0, answer[:200], f"{UNREADABLE}: more than {MAX_CHARS} characters")
        found, wanted = read_boxes(squeeze(answer)), read_boxes(squeeze(reference))
        for boxes, whose in ((wanted, " reference"), (found, "")):
            if not boxes or len(boxes) > MOST or not all(b.area for b in boxes):
                why = "no box" if not boxes else f"more than {MOST} boxes" if len(boxes) > MOST else "a box of no area"
                return Grade(0.0, answer, f"{UNREADABLE}{whose}: {why}")
        score = _matched(found, wanted) / max(len(found), len(wanted))
        return Grade(score, answer, EQUAL if score == 1 else f"{DIFFERENT}: IoU {score:.3f}")


def _matched(found: list[Corners], wanted: list[Corners]) -> float:
    """The sum of the IoU of pairs, the best first, no box in two of them."""
    pairs = [(iou(a, b), i, j) for (i, a), (j, b) in itertools.product(enumerate(found), enumerate(wanted))]
    total, left, right = 0.0, set[int](), set[int]()
    for value, i, j in sorted(pairs, key=lambda p: (-p[0], p[1], p[2])):
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            total += value
    return total
