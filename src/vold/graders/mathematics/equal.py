r"""Compare two mathematical answers with Math-Verify. Runs in the worker process only: it may hang or eat memory.

Only Math-Verify's LaTeX path is used. Its other path (`ExprExtractionConfig`) hands text to SymPy's `parse_expr`, which
calls `eval`. The advice of its README for rewards is followed: no repair of malformed operators, no "nits", the box
first. Time limits are off (they need SIGALRM); the parent process kills the worker instead.

Known limits, left as they are: 1/3 is not 0.333, \sqrt{2} not 1.414 and \pi not 3.14 (numbers agree to 6 decimals or
not at all); a column vector is not a tuple; (1,2) is not 1<x<2; "1,2,2" equals "1,2" (sets); "1,000" is the number
1000; "x=3" equals "3"; units are not converted; an expression that was never worked out ("2*3" for 6, or the question
typed back) equals its value.
"""

from __future__ import annotations

import logging
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig  # type: ignore[import-untyped, unused-ignore]
from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped, unused-ignore]
from sympy import N, nan, zoo  # type: ignore[import-untyped, unused-ignore]

from vold.graders.mathematics.notation import Notation, Unreadable, read, refuse, segments
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE

RELATIVE_TOLERANCE = 1e-5
"""Two numbers that Math-Verify calls equal (6 decimals) must also agree this closely, or 1/2^99 equals 1/2^98."""

_CONFIG = [
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="all", equations=False
        ),
    )
]


def compare(reference: str, answer: str) -> str:
    """Return a note: `EQUAL`, or why not, beginning with `DIFFERENT` or `UNREADABLE`."""
    try:
        gold = read(reference)
    except Unreadable as problem:
        return f"{UNREADABLE} reference: {problem}"
    try:
        found = read(answer)
    except Unreadable as problem:
        return f"{UNREADABLE}: {problem}"
    reason = refuse(gold, found)
    if reason:
        return f"{DIFFERENT}: {reason}"
    if gold.words or gold.base:
        return EQUAL
    return _compare_values(gold, found)


def _compare_values(gold: Notation, found: Notation) -> str:
    gold_parsed, found_parsed = _parse(gold.latex), _parse(found.latex)
    if not gold_parsed:
        return f"{UNREADABLE} reference: not LaTeX maths"
    if not found_parsed:
        return f"{UNREADABLE}: not LaTeX maths"
    if any(_undefined(value) for value in (*gold_parsed, *found_parsed)):
        return f"{UNREADABLE}: an undefined value"
    if not _chain_holds(found.latex):
        return f"{DIFFERENT}: equates different numbers"
    if not verify(gold_parsed, found_parsed, timeout_seconds=None):
        return DIFFERENT
    numbers = _last_number(gold.latex), _last_number(found.latex)
    if None not in numbers and not _close(*numbers):
        return f"{DIFFERENT}: equal only after rounding"
    return EQUAL


def _parse(latex: str) -> list[Any]:
    parsed: list[Any] = parse(
        rf"\boxed{{{latex}}}",
        _CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return parsed


def _undefined(value: Any) -> bool:
    return bool(value is nan or value is zoo or (hasattr(value, "has") and value.has(nan, zoo)))


def _number(latex: str) -> Any:
    parsed = _parse(latex) if latex else []
    value = parsed[0] if parsed else None
    return value if getattr(value, "is_number", False) and not _undefined(value) else None


def _last_number(latex: str) -> Any:
    return _number(segments(latex, "=")[-1])


def _close(a: Any, b: Any) -> bool:
    a, b = N(a, 30), N(b, 30)
    if not (a.is_finite and b.is_finite):
        return True
    return bool(abs(a - b) <= RELATIVE_TOLERANCE * max(abs(a), abs(b)))


def _chain_holds(latex: str) -> bool:
    """Whether all numbers that one chain of equals signs joins are equal: not so in "1=2=3" and "x=2=3"."""
    for statement in segments(latex, ",;"):
        parts = segments(statement, "=")
        numbers = [value for value in map(_number, parts) if value is not None] if len(parts) > 1 else []
        if any(not verify([numbers[0]], [other], timeout_seconds=None) for other in numbers[1:]):
            return False
    return True


def warm_up() -> None:
    """Build parser tables and caches, so that the first answer is not charged for them."""
    logging.disable(logging.CRITICAL)
    compare(r"\frac{1}{2}", r"x=\sqrt{\frac{1}{4}}")
