"""The process that runs a reward of the user's own: one JSON object a line in, one out. Arguments: SECONDS of CPU time
a response, BYTES of memory, and the reward's `module:attribute`. See `vold.graders.rewards`."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from vold.graders.mathematics.worker import serve
from vold.graders.outcome import CRASH

EXTRAS = ("finish", "tags")
"""What a reward is told by name where it takes an argument of that name."""


def extras_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Those of `EXTRAS` that a function takes.

    Example:
        >>> extras_of(lambda response, reference, tags=None: 1.0)
        ('tags',)
    """
    try:
        taken = inspect.signature(function).parameters
    except ValueError:  # built-in functions have none
        return ()
    any_name = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    return tuple(name for name in EXTRAS if any_name or name in taken)


def scores_of(value: Any, name: str) -> dict[str, float]:
    """What a reward has returned as scores by name; one number is the score `name`.

    Raises:
        ValueError: it is no score, or a mapping with one that is none.

    Example:
        >>> scores_of({"format": True, "box": 0.25}, "shape")
        {'shape.format': 1.0, 'shape.box': 0.25}
    """
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("returned no score: {}")
        return {k: v for part, inner in value.items() for k, v in scores_of(inner, f"{name}.{part}").items()}
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if not isinstance(number, bool | int | float) or not math.isfinite(number) or not 0 <= number <= 1:
        raise ValueError(f"returned {name}={value!r:.80}, and a score is a number from 0 to 1")
    return {name: float(number)}


def _marking(name: str) -> Callable[[Any], dict[str, object]]:
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)  # its parent has looked at it: see `rewards.Reward`
    reward: Any = found() if inspect.isclass(found) else found
    extras = extras_of(reward)

    def mark(request: Any) -> dict[str, object]:
        try:
            response = request["response"]
            if response is None:
                response = reward.right_answer(request["reference"])
            value = reward(response, request["reference"], **{key: request[key] for key in extras})
        except MemoryError:
            raise
        except (Exception, RecursionError) as problem:
            return {"note": f"{CRASH}: {type(problem).__name__}: {problem}"[:300]}
        try:
            return {"scores": scores_of(value, attribute), "response": str(response)}
        except ValueError as problem:
            return {"note": f"{CRASH}: {problem}"}

    return mark


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]), lambda: _marking(sys.argv[3]))
