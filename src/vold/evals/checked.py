"""Numbers that statistics are made of, looked at before use, and Student's t.

SciPy is imported only by the functions that need it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

SAME = 1e-12
"""Relative spread at which values count as equal: rounding is no spread."""


def finite(values: Sequence[float], name: str, least: int = 1) -> list[float]:
    """The values as floats.

    Raises:
        DataError: fewer than `least`, or one that is not finite.
    """
    numbers = [float(value) for value in values]
    if len(numbers) < least:
        raise DataError(
            f"needs at least {least} value{'s' if least > 1 else ''}",
            where=name,
            got=str(len(numbers)),
            fix="check that the run wrote results, or use more seeds",
        )
    for i, number in enumerate(numbers):
        if not math.isfinite(number):
            raise DataError("not a finite number", where=f"{name}[{i}]", got=repr(number), fix="leave the item out")
    return numbers


def mismatch(names: str, first: int, second: int) -> DataError:
    """The error that says that two sequences differ in length."""
    return DataError(
        f"{names} must have the same length", got=f"{first} and {second}", fix="align them by item id before comparing"
    )


def t_quantile(probability: float, df: int) -> float:
    """Student's quantile.

    Example:
        >>> round(t_quantile(0.975, 2), 4)
        4.3027
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]

    return float(stdtrit(df, probability))


def t_cdf(t: float, df: int) -> float:
    """Student's distribution function.

    Example:
        >>> t_cdf(0.0, 3)
        0.5
    """
    from scipy.special import stdtr  # type: ignore[import-untyped, unused-ignore]

    return float(stdtr(df, t))
