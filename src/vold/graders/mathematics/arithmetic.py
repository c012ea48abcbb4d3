"""Sums, products, powers and roots of fractions, complex numbers, tuples and matrices, bounded in size."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any, NamedTuple

from mpmath import mp, mpf

from vold.graders.mathematics.notation import Unreadable

MAX_BITS = 20_000
"""Larger whole numbers are not worked out: 2^20000 has 6,000 digits."""

MOST_STEPS = 200_000
"""Answers that take more steps to compare are refused: a long list of long sums."""


class Undefined(Unreadable):
    """Division by zero, 0^0, the logarithm of zero."""


class TooLarge(ValueError):
    """A value that is not worked out for its size."""


class Ledger:
    """Counts the steps of one comparison."""

    def __init__(self) -> None:
        self.steps = 0

    def open(self) -> None:
        """Begin to count."""
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            Unreadable: there were too many.
        """
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise Unreadable("too long to work out")


ledger = Ledger()


class Grid(NamedTuple):
    """A matrix, row by row; or a tuple or ratio of numbers, which is one row and of a kind of its own."""

    kind: str
    rows: int
    columns: int
    cells: tuple[Any, ...]

    def like(self, cells: tuple[Any, ...]) -> Grid:
        """Other numbers in the same places."""
        return Grid(self.kind, self.rows, self.columns, cells)


def real(value: Any) -> Any:
    """A number of mpmath for a fraction."""
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _finite(value: Any) -> Any:
    """A number that can be reckoned with: infinity is an end of intervals and an answer, but no term."""
    found = real(value)
    if mp.isinf(found):
        raise Undefined("an undefined value")
    return found


def plus(a: Any, b: Any) -> Any:
    """The sum of two numbers, or of two matrices of one shape."""
    if isinstance(a, Grid) or isinstance(b, Grid):
        if not (isinstance(a, Grid) and isinstance(b, Grid) and a[:3] == b[:3]):
            raise Unreadable("no value")
        return a.like(tuple(plus(x, y) for x, y in zip(a.cells, b.cells, strict=True)))
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    return _finite(a) + _finite(b)


def product(a: Any, b: Any) -> Any:
    """The product of numbers and matrices."""
    if isinstance(a, Grid) and isinstance(b, Grid):
        return _matrix_product(a, b)
    if isinstance(a, Grid):
        return a.like(tuple(product(x, b) for x in a.cells))
    if isinstance(b, Grid):
        return product(b, a)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return real(a) * real(b)


def _matrix_product(a: Grid, b: Grid) -> Grid:
    if (a.kind, b.kind) != ("matrix", "matrix") or a.columns != b.rows:
        raise Unreadable("no value")
    cells = [
        functools.reduce(plus, (product(a.cells[r * a.columns + k], b.cells[k * b.columns + c]) for k in range(b.rows)))
        for r in range(a.rows)
        for c in range(b.columns)
    ]
    return Grid("matrix", a.rows, b.columns, tuple(cells))


def over(a: Any, b: Any) -> Any:
    """A quotient."""
    if isinstance(b, Grid):
        raise Unreadable("no value")
    if b == 0:
        raise Undefined("an undefined value")
    return product(a, 1 / b if isinstance(b, Fraction) else 1 / _finite(b))


def power(base: Any, exponent: Any) -> Any:
    """A power; of a negative number to an odd root the real one."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, (Fraction, Grid)):
        return _whole_power(base, int(exponent))
    if isinstance(base, Grid) or isinstance(exponent, Grid):
        raise Unreadable("no value")
    if base == 0:
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        raise Undefined("an undefined value")
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        found = exact_root(base, exponent.denominator) if exponent.denominator < 100 else None
        if found is not None:
            return _whole_power(found, exponent.numerator)
    size = real(base)
    if abs(real(exponent)) * (abs(mp.mag(size)) + 1) > MAX_BITS:
        raise TooLarge
    return mp.power(size, real(exponent))


def _whole_power(base: Any, exponent: int) -> Any:
    if isinstance(base, Grid):
        if not 1 <= exponent <= 64:
            raise Unreadable("no value")
        return functools.reduce(product, [base] * exponent)
    if base == 0 and exponent <= 0:
        raise Undefined("an undefined value")
    bits = max(abs(base.numerator), base.denominator).bit_length()
    if abs(exponent) * (bits - 1) > MAX_BITS:
        raise TooLarge
    return base**exponent


def exact_root(base: Fraction, index: int) -> Fraction | None:
    """The real root of a fraction if it is a fraction; of a negative number if the index is odd."""
    if base < 0:
        found = exact_root(-base, index) if index % 2 else None
        return None if found is None else -found
    above, below = _whole_root(base.numerator, index), _whole_root(base.denominator, index)
    return None if above is None or below is None else Fraction(above, below)


def _whole_root(number: int, index: int) -> int | None:
    if number.bit_length() > 4000:
        return None
    if index == 2:
        found = math.isqrt(number)
    else:
        low, high = 0, 1 << (number.bit_length() // index + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**index <= number else (low, middle - 1)
        found = low
    return found if found**index == number else None


def determinant(grid: Any) -> Any:
    """The determinant of a square matrix of at most six rows."""
    if not isinstance(grid, Grid) or grid.kind != "matrix" or not grid.rows == grid.columns <= 6:
        raise Unreadable("no value")
    n = grid.rows
    rows = [list(grid.cells[i * n : (i + 1) * n]) for i in range(n)]
    return _expand(rows)


def _expand(rows: list[list[Any]]) -> Any:
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, head in enumerate(rows[0]):
        rest = _expand([[*row[:column], *row[column + 1 :]] for row in rows[1:]])
        terms.append(product(product(head, rest), Fraction((-1) ** column)))
    return functools.reduce(plus, terms)
