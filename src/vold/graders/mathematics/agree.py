"""Whether two trees have the same value, or values that stay in one proportion."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from mpmath import mp

from vold.graders.mathematics.arithmetic import Grid, Undefined, real
from vold.graders.mathematics.notation import Unreadable
from vold.graders.mathematics.trees import Node, count
from vold.graders.mathematics.values import Evaluator

DIGITS = (40, 90)
"""Two precisions: a difference that is zero shrinks from the first to the second."""

SURE_DIGITS = 80
"""Those of the second that are right for sure."""

POINTS, POINTS_OF_STEPS = 4, 6
"""In how many points expressions with names in them are compared, without and with steps such as floors in them. Two
different ones agree there by chance only."""

ROUNDED_PLACES = 6
"""A decimal with so many places may stand for the number it is rounded from."""

RELATIVE_TOLERANCE = Fraction(1, 10**5)
"""And must be this close: 0.000001 does not stand for 1/1500000."""

PRINTED_DIGITS = 17
"""Programs print a double with up to so many digits, of which the last may be off: 2/3 is 0.6666666666666666."""

_WITH_NAMES_TEXT = """
sym apply pm label equation inequality verbatim list rounded
"""
_WITH_NAMES = frozenset(_WITH_NAMES_TEXT.split())


def constant(node: Node) -> bool:
    """Whether there are no names in a tree."""
    return node.op not in _WITH_NAMES and all(map(constant, node.args))


def same_value(gold: Node, found: Node) -> bool:
    """Whether two trees have the same value; with names in them, in all points where both have one.

    Raises:
        Unreadable: one of them has none.
    """
    if _bases(gold) != _bases(found):
        return False
    if constant(gold) and constant(found):
        return _agree(gold, found, 0) or _is_rounded(gold, found)
    agreed, steps = 0, any(count(tree, op) for tree in (gold, found) for op in ("floor", "ceil", "mod"))
    for point in range(POINTS_OF_STEPS if steps else POINTS):
        try:
            if not _agree(gold, found, point):
                return False
            agreed += 1
        except Undefined:
            continue
    if not agreed:
        raise Undefined("an undefined value")
    return True


def proportional(a: Node, b: Node, *, positive: bool) -> bool:
    """Whether one tree is the other times a constant, in all points."""
    ratios = []
    for point in range(POINTS):
        x, y = _at(a, point), _at(b, point)
        if x is None or y is None or (x == 0) != (y == 0):
            return False
        if x != 0:
            ratios.append(real(x) / real(y))
    if not ratios or (positive and not mp.re(ratios[0]) > 0):
        return False
    return all(abs(ratio - ratios[0]) <= abs(ratios[0]) * 1e-12 for ratio in ratios)


def rough(node: Node) -> complex | None:
    """A constant to the precision of the machine, to see at once that two are far apart; None for anything else."""
    try:
        value = Evaluator(0, 20).value(node) if constant(node) and node.op != "unit" else None
        found = None if value is None or isinstance(value, Grid) else complex(real(value))
        return None if found is None or max(abs(found.real), abs(found.imag)) > 1e150 else found
    except (Unreadable, OverflowError):
        return None


def far_apart(a: complex | None, b: complex | None) -> bool:
    """Whether two rough values cannot be of equal numbers."""
    return a is not None and b is not None and abs(a - b) > 1e-4 * max(abs(a), abs(b), 1e-9)


def size(node: Node) -> Any:
    """The value of a constant as a real number, without its unit."""
    if node.op == "unit":
        return size(node.args[0]) / (100 if node.value == (("%", 1),) else 1)
    value = Evaluator(0, DIGITS[0]).value(node)
    if isinstance(value, Grid):
        raise Unreadable("no value")
    return mp.re(real(value))


def _bases(node: Node) -> set[object]:
    """The number bases that an answer is written in: they are a part of it."""
    own = {node.value} if node.op == "based" else set()
    return own.union(*map(_bases, node.args))


def _at(tree: Node, point: int) -> Any:
    try:
        value = Evaluator(point, DIGITS[0]).value(tree)
    except Unreadable:
        return None
    return None if isinstance(value, Grid) else value


def _agree(gold: Node, found: Node, point: int) -> bool:
    a, b = (Evaluator(point, DIGITS[0]).value(tree) for tree in (gold, found))
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    gap = _gap(a, b)
    if gap is None or gap == mp.inf:
        return False
    if gap > 1e-12 and gap > _scale(a, b) * mp.mpf(10) ** -25:
        return False
    with mp.workdps(DIGITS[1]):
        a, b = (Evaluator(point, DIGITS[1]).value(tree) for tree in (gold, found))
        finer = _gap(a, b)
        small = mp.mpf(10)
        return finer is not None and (finer <= gap * small**-30 or finer <= _scale(a, b) * small**-SURE_DIGITS)


def _gap(a: Any, b: Any) -> Any:
    """How far two values are apart; None if they are not of one kind."""
    if isinstance(a, Grid) or isinstance(b, Grid):
        if not isinstance(a, Grid) or not isinstance(b, Grid) or a[:3] != b[:3]:
            return None
        gaps = [_gap(x, y) for x, y in zip(a.cells, b.cells, strict=True)]
        return None if None in gaps else max(gaps)
    x, y = real(a), real(b)
    if mp.isinf(x) or mp.isinf(y):
        return mp.mpf(0) if x == y else mp.inf
    return abs(x - y)


def _scale(a: Any, b: Any) -> Any:
    if isinstance(a, Grid):
        return max(_scale(x, y) for x, y in zip(a.cells, b.cells, strict=True))
    return max(abs(real(a)), abs(real(b)))


def _is_rounded(gold: Node, found: Node) -> bool:
    """Whether one is a decimal of enough places that is the other, rounded."""
    for near, exact in ((gold, found), (found, gold)):
        places = _places(near)
        if places >= ROUNDED_PLACES and _places(exact) < 0:
            with mp.workdps(DIGITS[1]):
                value, decimal = (Evaluator(0, DIGITS[1]).value(node) for node in (exact, near))
                return _rounds_to(value, decimal, places)
    return False


def _rounds_to(exact: Any, near: Fraction, places: int) -> bool:
    """Whether a value rounds to a decimal, or a program prints that for it."""
    if isinstance(exact, Grid) or mp.isinf(real(exact)):
        return False
    last = Fraction(1, 10**places)
    if isinstance(exact, Fraction):
        gap = abs(near - exact)
    else:
        gap, last = abs(real(near) - exact) + abs(exact) * mp.mpf(10) ** -SURE_DIGITS, real(last)
    if gap > abs(exact) * RELATIVE_TOLERANCE:
        return False
    printed = abs(near) * 10**places < 10**PRINTED_DIGITS and complex(real(exact)) == float(near)
    return bool(printed or gap * 2 <= last)


def _places(node: Node) -> int:
    """The decimals of a number as it is written; -1 for anything but a number."""
    if node.op == "neg":
        return _places(node.args[0])
    return node.number()[1] if node.op == "num" else -1
