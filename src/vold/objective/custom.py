"""Masks and weights written by the user: `my_module:function` in a recipe, checked before a run starts.

`vold.types.named` says how the module is found. Only a plain Python function is accepted, and it is tried on two
made-up rollouts before any model is loaded.
"""

from __future__ import annotations

import inspect
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vold.errors import ConfigError, TrainingError
from vold.types import Completion, Grade, Rollout, TokenScores
from vold.types.named import load_callable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    FunctionOptions = Mapping[str, float | str]

NO_OPTIONS: FunctionOptions = MappingProxyType({})


class RolloutMask(Protocol):
    """M of every rollout of a step. A rollout with 0 is not shown to the teacher.

    It is called before the teacher has read any and again afterwards, and must give the same answer.
    """

    def __call__(self, rollouts: Sequence[Rollout], /) -> Sequence[float]:
        """One finite number, 0 or more, for each rollout, in order. Groups are whole."""
        ...


class TokenWeight(Protocol):
    """W of every token of a step, called when the teacher has read what it was asked to (`rollout.teacher`).

    A run that is killed goes on to the same weights only if the function depends on the rollouts alone.
    """

    def __call__(self, rollouts: Sequence[Rollout], /) -> Sequence[ArrayLike]:
        """For each rollout, in order, one finite number, 0 or more, for each token of its response: an array, or a
        list."""
        ...


def load_function(name: str, options: FunctionOptions = NO_OPTIONS, arguments: tuple[str, ...] = ("rollouts",)) -> Any:
    """Import `module:function`.

    Raises:
        ConfigError: no such module or function, or not a plain function of these arguments and options.
    """
    function = load_callable(name, *arguments, options=options)
    if not inspect.isfunction(function):
        got = type(function).__name__
        raise ConfigError("this is not a Python function", where=name, got=got, fix="name a function defined with def")
    return function


def call_mask(name: str, rollouts: Sequence[Rollout], options: FunctionOptions = NO_OPTIONS) -> list[float]:
    """M of every rollout from the user's function.

    Raises:
        ConfigError: it cannot be loaded.
        TrainingError: it raised, or returned something else than `RolloutMask` says.
    """
    values = _called(name, rollouts, options)
    return [_number(v, name, f"rollout {i}") for i, v in enumerate(_listed(values, len(rollouts), name, "rollouts"))]


def call_weight(
    name: str, rollouts: Sequence[Rollout], options: FunctionOptions = NO_OPTIONS
) -> list[NDArray[np.float64]]:
    """W of every token from the user's function.

    Raises:
        ConfigError: it cannot be loaded.
        TrainingError: it raised, or returned something else than `TokenWeight` says.
    """
    rows = _listed(_called(name, rollouts, options), len(rollouts), name, "rollouts")
    return [
        _numbers(row, len(r.completion.ids), name, f"rollout {i}")
        for i, (r, row) in enumerate(zip(rollouts, rows, strict=True))
    ]


def try_function(name: str, options: FunctionOptions = NO_OPTIONS, *, per_token: bool) -> None:
    """Load a function and call it on a made-up group of two: a right answer, and a wrong one after a tool call.

    Raises:
        ConfigError: it cannot be loaded, fails, or returns what a run could not use.
    """
    steps = Completion((5, 6, 7, 2), (-0.1, -0.2, 0.0, -0.3), (1, 1, 0, 1), "stop", ((5, 6),) * 4)
    scores = TokenScores((-0.2, -0.1, -0.5, -1.0), candidate_logp=((-0.2, -1.0),) * 4) if per_token else None
    rollouts = [
        Rollout("trial", 0, (1, 2), Completion((5, 2), (-0.1, -0.2), (1, 1), "stop"), Grade(1.0, "8", "equal")),
        Rollout("trial", 0, (1, 2), steps, Grade(0.0, "7", "wrong"), scores, contrast_logp=(-0.3, -0.2, -0.4, -1.2)),
    ]
    try:
        call_weight(name, rollouts, options) if per_token else call_mask(name, rollouts, options)
    except TrainingError as error:
        raise ConfigError(
            "this function fails on a made-up group of two rollouts",
            where=name,
            got=f"{error.what}: {error.got}",
            fix=f"see vold.objective.custom.{'TokenWeight' if per_token else 'RolloutMask'}",
        ) from error


def _called(name: str, rollouts: Sequence[Rollout], options: FunctionOptions) -> object:
    function = load_function(name, options)
    try:
        return function(rollouts, **options)
    except Exception as error:
        raise TrainingError(
            "a function of the recipe failed", where=name, got=f"{type(error).__name__}: {error}"
        ) from error


def _listed(values: object, length: int, name: str, what: str) -> list[object]:
    found = list(values) if isinstance(values, list | tuple) else None
    if found is None or len(found) != length:
        got = type(values).__name__ if found is None else f"{len(found)} numbers"
        raise TrainingError(
            "a function of the recipe returned another shape", where=name, got=f"{got} for {length} {what}"
        )
    return found


def _numbers(row: object, length: int, name: str, place: str) -> NDArray[np.float64]:
    """A number for each token. Looked at one by one only where something is wrong."""
    if isinstance(row, np.ndarray) and row.shape == (length,) and row.dtype.kind in "biuf":
        values = row.astype(np.float64)
    else:
        listed = _listed(row.tolist() if isinstance(row, np.ndarray) else row, length, name, f"tokens of {place}")
        values = np.array([_number(v, name, f"token {t} of {place}") for t, v in enumerate(listed)])
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        _number(float(values[wrong[0]]), name, f"token {wrong[0]} of {place}")
    return values


def _number(value: object, name: str, what: str) -> float:
    if isinstance(value, bool | int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    raise TrainingError("a weight must be a finite number, 0 or more", where=name, got=f"{value!r} for {what}")
