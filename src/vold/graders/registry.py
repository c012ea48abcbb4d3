"""The table of graders, filled from the modules of this folder, and the check that a reference can be graded at all."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, TypeVar

import vold.graders
from vold.errors import ConfigError, UngradableReference

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.types import Grader

    Made = TypeVar("Made", bound=type[Grader])

_GRADERS: dict[str, Callable[[], Grader]] = {}


def grader(name: str) -> Callable[[Made], Made]:
    """Class decorator: recipes and data files can name this grader. Its module lies in this folder."""

    def register(made: Made) -> Made:
        _GRADERS[name] = made
        return made

    return register


def grader_names() -> tuple[str, ...]:
    """Return the names `get_grader` knows."""
    for module in pkgutil.iter_modules(vold.graders.__path__, "vold.graders."):
        if not module.ispkg:
            importlib.import_module(module.name)
    return tuple(sorted(_GRADERS))


def known_grader(name: str) -> str:
    """Return the name of a grader as it is.

    Raises:
        ConfigError: there is no grader of that name.
    """
    if name not in _GRADERS and name not in (names := grader_names()):
        close = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            "unknown grader", where="grader", got=repr(name), fix=f"{hint}choose one of {', '.join(names)}"
        )
    return name


def is_plain(name: str) -> bool:
    """Whether a `grader` can only be one of the package: it neither names code of the user's own nor adds up several.

    Example:
        >>> is_plain("math"), is_plain("my_module:reward"), is_plain("0.5 math + 0.5 ocr")
        (True, False, False)
    """
    return not any(sign in name for sign in ":+ ")


def get_grader(name: str) -> Grader:
    """Return the grader called `name`; the same object each time, so that all callers share one math worker. Another
    than `is_plain` is of the user's own, or a sum (`vold.graders.rewards`): what it names is imported.

    Raises:
        ConfigError: there is no grader of that name, or the package it needs is not installed.
    """
    if is_plain(name):
        return _shared(known_grader(name))
    from vold.graders.rewards import weighted

    return weighted(name)


@functools.cache
def _shared(name: str) -> Grader:
    return _GRADERS[name]()


def check_reference(grader_name: str, reference: str) -> None:
    r"""Grade `\boxed{reference}` against `reference` and refuse a reference that does not get full marks.

    Run this when data is loaded: a reference its own grader cannot read would score every response 0. Of a sum each
    addend is tried; rewards of the user's own as `vold.graders.rewards.Reward.check` does.

    Raises:
        UngradableReference: the grader does not accept the reference as an answer to itself.
        ConfigError: there is no grader of that name.
    """
    if not is_plain(grader_name):
        from vold.graders.rewards import weighted

        made = weighted(grader_name)
        for term in made.terms:
            if term.name not in made.rewards:
                check_reference(term.name, reference)
        made.check(reference)
        return
    grade = get_grader(grader_name)(rf"\boxed{{{reference}}}", reference)
    if grade.score != 1.0:
        shown = reference if len(reference) <= 200 else reference[:200] + "..."
        raise UngradableReference(
            f"the {grader_name!r} grader does not accept this reference as an answer to itself ({grade.note})",
            where="reference",
            got=repr(shown),
            fix="correct the reference, choose another grader, or leave the row out",
        )
