"""Look graders up by name, and check that a reference can be graded at all."""

from __future__ import annotations

import difflib
import functools
from typing import TYPE_CHECKING

from vold.errors import ConfigError, UngradableReference
from vold.graders.choice import ChoiceGrader
from vold.graders.exact import ExactGrader
from vold.graders.math import MathGrader

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.types import Grader

_GRADERS: dict[str, Callable[[], Grader]] = {"exact": ExactGrader, "choice": ChoiceGrader, "math": MathGrader}


def grader_names() -> tuple[str, ...]:
    """Return the names `get_grader` knows."""
    return tuple(_GRADERS)


def get_grader(name: str) -> Grader:
    """Return the grader called `name`; the same object each time, so that all callers share one math worker.

    Raises:
        ConfigError: there is no grader of that name, or the package it needs is not installed.
    """
    if name not in _GRADERS:
        close = difflib.get_close_matches(str(name).lower(), _GRADERS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            "unknown grader", where="grader", got=repr(name), fix=f"{hint}choose one of {', '.join(_GRADERS)}"
        )
    return _shared(name)


@functools.cache
def _shared(name: str) -> Grader:
    return _GRADERS[name]()


def check_reference(grader_name: str, reference: str) -> None:
    r"""Grade `\boxed{reference}` against `reference` and refuse a reference that does not get full marks.

    Run this when data is loaded: a reference its own grader cannot read would score every response 0.

    Raises:
        UngradableReference: the grader does not accept the reference as an answer to itself.
        ConfigError: there is no grader of that name.
    """
    grade = get_grader(grader_name)(rf"\boxed{{{reference}}}", reference)
    if grade.score != 1.0:
        shown = reference if len(reference) <= 200 else reference[:200] + "..."
        raise UngradableReference(
            f"the {grader_name!r} grader does not accept this reference as an answer to itself ({grade.note})",
            where="reference",
            got=repr(shown),
            fix="correct the reference, choose another grader, or leave the row out",
        )
