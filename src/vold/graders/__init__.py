r"""Graders: what a response must do to earn its reward. All of them read the last closed `\boxed{}` and nothing else.
A grader is a class in a module of this folder under `@grader("name")`; `vold.graders.registry` finds it.

Example:
    >>> from vold.graders import get_grader
    >>> get_grader("exact")(r"3 + 5 is \boxed{8}", "8")
    Grade(score=1.0, extracted='8', note='equal')
"""

from vold.graders.extract import Extraction, extract_boxed
from vold.graders.outcome import Outcome, outcome
from vold.graders.registry import check_reference, get_grader, grader_names, known_grader

__all__ = [
    "Extraction",
    "Outcome",
    "check_reference",
    "extract_boxed",
    "get_grader",
    "grader_names",
    "known_grader",
    "outcome",
]
