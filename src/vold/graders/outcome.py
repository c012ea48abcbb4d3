r"""The notes graders write, and the five outcomes they are counted under.

A run logs right, wrong, unparsed, truncated and timed out as separate numbers: a reward that falls because answers
are cut off needs another cure than one that falls because answers are wrong.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Literal

from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.types import Finish

Outcome = Literal["right", "wrong", "unparsed", "truncated", "timed_out"]

EQUAL = "equal"
DIFFERENT = "different"
TRUNCATED = "truncated"
UNCLOSED = "unclosed thinking block"
NO_BOX = r"no \boxed{}"
UNREADABLE = "unreadable"
JUDGE_FAILED = f"{UNREADABLE}: judge_failed"
"""The judge's reply could not be used: not the model's fault, so it is counted on its own as well."""
NOT_ANSWERED = "not answered"
"""A server refused to answer: not the model's fault either."""
TIME_OUT = "grader time-out"
CRASH = "grader crash"


def verdict(right: bool, found: str) -> Grade:
    """A grade of 1 or 0 for an answer that was read and compared."""
    return Grade(float(right), found, EQUAL if right else DIFFERENT)


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score by name, over the grades that have it (`vold.types.Grade.scores`).

    Example:
        >>> mean_scores([{"box": 1.0, "count": 0.5}, {"box": 0.0}, {}])
        {'box': 0.5, 'count': 0.5}
    """
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: fmean([one[name] for one in scores if name in one]) for name in names}


_BY_PREFIX: tuple[tuple[str, Outcome], ...] = (
    (TRUNCATED, "truncated"),
    (UNCLOSED, "truncated"),
    (NO_BOX, "unparsed"),
    (UNREADABLE, "unparsed"),
    (TIME_OUT, "timed_out"),
    (CRASH, "timed_out"),
)


def outcome(grade: Grade, finish: Finish = "stop") -> Outcome:
    """Put a grade under one of five headings that add up to the number of rollouts.

    A score of 1 is "right". Below that, a response cut off by the token budget or inside its thinking block is
    "truncated", one the grader gave up on (time or memory limit, crash) is "timed_out", one with nothing readable in
    it is "unparsed", and the rest is "wrong". Works with any grader: unknown notes are judged by `extracted`.

    Example:
        >>> from vold.types import Grade
        >>> outcome(Grade(0.0, None, NO_BOX)), outcome(Grade(0.0, "7", "different"))
        ('unparsed', 'wrong')
    """
    if grade.score >= 1.0:
        return "right"
    if finish == "length":
        return "truncated"
    for prefix, name in _BY_PREFIX:
        if grade.note.startswith(prefix):
            return name
    return "unparsed" if grade.extracted is None else "wrong"
