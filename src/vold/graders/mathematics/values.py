r"""The value of a tree: an exact fraction where it is one, else a complex number to a given precision.

Everything is bounded: what would grow beyond `MAX_BITS` is not worked out but becomes a number that only an equal tree
has, and so does a name in a point. Two expressions with names in them are equal when they agree in several points; two
different ones agree there by chance only.
"""

from __future__ import annotations

import functools
import hashlib
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mpmath import mp, mpc, mpf

from vold.graders.mathematics.arithmetic import (
    MAX_BITS,
    Grid,
    TooLarge,
    Undefined,
    determinant,
    exact_root,
    ledger,
    over,
    plus,
    power,
    product,
    real,
)
from vold.graders.mathematics.atoms import TRIGONOMETRIC
from vold.graders.mathematics.notation import Unreadable
from vold.graders.mathematics.trees import Node

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STEPS = 10_000
"""What would take more steps is not worked out: a sum inside a sum inside a sum."""

BITS_OF_A_STEP, STEPS_OF_A_REAL = 200, 5
"""Long fractions and numbers that are no fractions take several steps."""

MAX_TERMS = 1000
"""Longer sums and products are not worked out."""


class Evaluator:
    """Works out trees in one point, at one precision."""

    def __init__(self, point: int, digits: int) -> None:
        self.point, self.digits, self.steps = point, digits, 0
        self.bound: dict[str, Fraction] = {}
        self.degrees = False

    def value(self, node: Node) -> Any:
        """The value of a tree.

        Raises:
            Unreadable: it has none.
        """
        with mp.workdps(self.digits):
            found = self._value(node)
        ledger.spend(self.steps)
        return found

    def _value(self, node: Node) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            return self.hidden(shape_of(node))
        rule = _RULES.get(node.op)
        if rule is None:
            raise Unreadable("no value")
        try:
            return self.checked(rule(self, node))
        except TooLarge:
            return self.hidden(shape_of(node))
        except (ZeroDivisionError, OverflowError):
            raise Undefined("an undefined value") from None

    def checked(self, value: Any) -> Any:
        """A value that is defined and not too large. It costs the more steps the longer it is."""
        if isinstance(value, Fraction):
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            self.steps += bits // BITS_OF_A_STEP
            if bits > MAX_BITS:
                raise TooLarge
        elif isinstance(value, (mpf, mpc)):
            self.steps += STEPS_OF_A_REAL
            if not mp.isfinite(value):
                if mp.isnan(value) or isinstance(value, mpc):
                    raise Undefined("an undefined value")
            elif value and abs(mp.mag(value)) > MAX_BITS:
                raise TooLarge
        return value

    def numbers(self, node: Node) -> list[Any]:
        """The values of what an operation is applied to."""
        return [self._value(arg) for arg in node.args]

    def hidden(self, text: str) -> Any:
        """A number that stands for a name or for something that is not worked out."""
        return _point(text, self.point)


@functools.lru_cache(maxsize=4096)
def _point(text: str, point: int) -> Fraction:
    """A number near 1, 30 and, from the fourth point on, 1000; from the second point on of either sign."""
    digest = hashlib.sha256(f"{point} {text}".encode()).digest()
    size = Fraction(int.from_bytes(digest[:4], "big") % 9973 + 997, 4999) * (1, 1, 29, 29, 997, 997)[point]
    return -size if point % 2 and digest[4] % 2 else size


def shape_of(node: Node) -> str:
    """A text that trees share when they differ only in the order of sums and products and in how numbers look."""
    if node.op == "num":
        return str(node.number()[0])
    parts = [shape_of(arg) for arg in node.args]
    if node.op in ("add", "mul"):
        parts.sort()
    return f"{node.op}:{'' if node.value is None else node.value}({','.join(parts)})"


def _root(self: Evaluator, node: Node) -> Any:
    base, index = self.numbers(node)
    if isinstance(index, Fraction) and index.denominator == 1 and 0 < index < 100 and not isinstance(base, Grid):
        if isinstance(base, Fraction):
            found = exact_root(base, int(index))
            if found is not None:
                return found
        if mp.im(real(base)) == 0 and mp.re(real(base)) < 0 and index % 2:
            return -mp.root(-mp.re(real(base)), int(index))
        return mp.root(real(base), int(index))
    return power(base, over(Fraction(1), index))


def _factorial(self: Evaluator, node: Node) -> Any:
    (n,) = self.numbers(node)
    if not isinstance(n, Fraction) or n.denominator != 1:
        if isinstance(n, Grid) or abs(real(n)) > 1000:
            raise TooLarge
        return mp.gamma(real(n) + 1)
    if n < 0:
        raise Undefined("an undefined value")
    if n > 3000:
        raise TooLarge
    step = 2 if node.op == "fact2" else 1
    return Fraction(math.factorial(int(n)) if step == 1 else math.prod(range(int(n), 0, -2)))


def _binomial(self: Evaluator, node: Node) -> Any:
    n, k = self.numbers(node)
    whole = isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1
    if whole and k >= 0 and n >= 0:
        fewer = min(k, n - k)
        if fewer > 2000 or n.numerator.bit_length() * max(fewer, 1) > MAX_BITS:
            raise TooLarge
        return Fraction(math.comb(int(n), int(k)))
    if isinstance(n, Grid) or isinstance(k, Grid) or max(abs(real(n)), abs(real(k))) > 1000:
        raise TooLarge
    return mp.binomial(real(n), real(k))


def _modulo(self: Evaluator, node: Node) -> Any:
    a, b = self.numbers(node)
    if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
        raise TooLarge
    return a % b


def _absolute(self: Evaluator, node: Node) -> Any:
    (a,) = self.numbers(node)
    if isinstance(a, Grid):
        if a.kind == "tuple":
            return mp.sqrt(sum(abs(real(c)) ** 2 for c in a.cells))
        return determinant(a)
    return abs(a)


def _rounded(self: Evaluator, node: Node) -> Any:
    (a,) = self.numbers(node)
    if isinstance(a, Grid):
        raise Unreadable("no value")
    if mp.im(real(a)) != 0:
        raise Undefined("an undefined value")
    up = node.op == "ceil"
    if isinstance(a, Fraction):
        return Fraction(math.ceil(a) if up else math.floor(a))
    x = mp.re(a)
    near = mp.nint(x)
    if abs(x - near) >= mpf(10) ** (8 - self.digits):
        near = mp.ceil(x) if up else mp.floor(x)
    return Fraction(int(near))


def _function(self: Evaluator, node: Node) -> Any:
    arguments = [arg for arg in node.args if arg.op != "base"]
    outer, self.degrees = self.degrees, node.value in TRIGONOMETRIC
    try:
        values = [self._value(arg) for arg in arguments]
    finally:
        self.degrees = outer
    if node.value in ("gcd", "lcm"):
        return _divisors(str(node.value), values)
    if node.value in ("max", "min"):
        return (max if node.value == "max" else min)(values, key=lambda v: mp.re(real(v)))
    if node.value == "det":
        return determinant(values[0])
    if len(values) != 1 or isinstance(values[0], Grid):
        raise Unreadable("no value")
    x = real(values[0])
    if abs(x) > MAX_BITS and node.value not in ("ln", "log", "lg"):
        raise TooLarge
    if node.value in ("ln", "log", "lg"):
        return _logarithm(self, node, x)
    return _FUNCTIONS[str(node.value)](x)


def _logarithm(self: Evaluator, node: Node, x: Any) -> Any:
    bases = [arg for arg in node.args if arg.op == "base"]
    base = real(self._value(bases[0].args[0])) if bases else mp.e if node.value == "ln" else mpf(10)
    if x == 0 or base in (0, 1):
        raise Undefined("an undefined value")
    return mp.log(x) / mp.log(base)


def _divisors(name: str, values: list[Any]) -> Any:
    if not all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
        raise TooLarge
    return Fraction((math.gcd if name == "gcd" else math.lcm)(*map(int, values)))


def _iterated(self: Evaluator, node: Node) -> Any:
    low, high, body = node.args
    ends = self._value(low), self._value(high)
    if not all(isinstance(end, Fraction) and end.denominator == 1 for end in ends) or ends[1] - ends[0] >= MAX_TERMS:
        raise TooLarge
    name, total = str(node.value), Fraction(0 if node.op == "sum" else 1)
    outer, join = self.bound, plus if node.op == "sum" else product
    try:
        for k in range(int(ends[0]), int(ends[1]) + 1):
            if self.steps > MAX_STEPS:
                raise TooLarge
            self.bound = outer | {name: Fraction(k)}
            total = self.checked(join(total, self._value(body)))
    finally:
        self.bound = outer
    return total


def _symbol(self: Evaluator, node: Node) -> Any:
    name = str(node.value)
    return self.bound[name] if name in self.bound else self.hidden(name)


def _constant(self: Evaluator, node: Node) -> Any:
    name = str(node.value)
    if name in self.bound:
        return self.bound[name]
    return {"pi": +mp.pi, "e": +mp.e, "i": mpc(0, 1), "inf": mp.inf}[name]


def _degrees(self: Evaluator, node: Node) -> Any:
    (a,) = self.numbers(node)
    return product(a, mp.pi / 180) if self.degrees else a


def _plus_minus(self: Evaluator, node: Node) -> Any:
    (a,) = self.numbers(node)
    return product(a, self.hidden("\\pm") if node.value == "pm" else -self.hidden("\\pm"))


def _ratio(self: Evaluator, node: Node) -> Any:
    values = self.numbers(node)
    if len(values) == 2:
        return over(values[0], values[1])
    return Grid("ratio", 1, len(values), tuple(over(v, values[0]) for v in values))


def _grid(self: Evaluator, node: Node) -> Any:
    if node.op == "tuple" and node.value != "()":
        raise Unreadable("no value")
    cells = tuple(self.numbers(node))
    rows, columns = node.value if isinstance(node.value, tuple) else (1, len(cells))
    return Grid(node.op, rows, columns, cells)


def _raised(self: Evaluator, node: Node) -> Any:
    """A power; with a T above it the transpose, which makes a column of a tuple."""
    written, exponent = node.args
    if exponent.value not in ("T", "\\top"):
        return power(self._value(written), self._value(exponent))
    if written.op == "tuple":
        return Grid("matrix", len(written.args), 1, tuple(self.numbers(written)))
    base = self._value(written)
    if not isinstance(base, Grid) or base.kind != "matrix":
        return power(base, self._value(exponent))
    cells = tuple(base.cells[r * base.columns + c] for c in range(base.columns) for r in range(base.rows))
    return Grid("matrix", base.columns, base.rows, cells)


def _hidden(self: Evaluator, node: Node) -> Any:
    values = ",".join(str(v if isinstance(v, Fraction) else mp.nstr(v, 25)) for v in self.numbers(node))
    return self.hidden(f"{node.op} {node.value} {values}")


def _unit(self: Evaluator, node: Node) -> Any:
    return product(self._value(node.args[0]), self.hidden(f"unit {node.value}"))


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc, "arcsin": mp.asin,
    "arccos": mp.acos, "arctan": mp.atan, "arccot": mp.acot, "asin": mp.asin, "acos": mp.acos, "atan": mp.atan,
    "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "coth": mp.coth, "arsinh": mp.asinh, "arcosh": mp.acosh,
    "artanh": mp.atanh, "exp": mp.exp,
}  # fmt: skip
_RULES: dict[str, Callable[[Evaluator, Node], Any]] = {
    "num": lambda self, node: node.number()[0],
    "based": lambda self, node: node.args[0].number()[0],
    "const": _constant, "sym": _symbol, "named": _hidden, "apply": _hidden, "unit": _unit,
    "add": lambda self, node: functools.reduce(plus, self.numbers(node)),
    "mul": lambda self, node: functools.reduce(product, self.numbers(node)),
    "neg": lambda self, node: product(Fraction(-1), self._value(node.args[0])),
    "div": lambda self, node: over(*self.numbers(node)),
    "pct": lambda self, node: product(Fraction(1, 100), self._value(node.args[0])),
    "pow": _raised, "root": _root, "fact": _factorial, "fact2": _factorial, "binom": _binomial, "mod": _modulo,
    "abs": _absolute, "floor": _rounded, "ceil": _rounded, "func": _function, "sum": _iterated, "prod": _iterated,
    "deg": _degrees, "pm": _plus_minus, "ratio": _ratio, "tuple": _grid, "matrix": _grid,
}  # fmt: skip
