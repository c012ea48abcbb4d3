"""The trees that answers are read into."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """A tree: the operation, what it is applied to, and a value where there is one (a number, a name, brackets)."""

    op: str
    args: tuple[Node, ...] = ()
    value: object = None

    def number(self) -> tuple[Fraction, int]:
        """The value of a "num", and the decimals it is written with."""
        assert isinstance(self.value, tuple)
        return self.value[0], self.value[1]


def number(value: Fraction | int, places: int = 0) -> Node:
    """A number; `places` says how many decimals it is written with."""
    return Node("num", (), (Fraction(value), places))


def primed(base: Node) -> Node:
    """A name with a prime is another name; anything else with a prime equals only itself."""
    return Node("sym", (), f"{base.value}'") if base.op == "sym" else Node("named", (base,), "'")


def with_sign(node: Node, sign: int) -> Node:
    """The tree with the upper (1) or the lower (-1) sign of each plus-minus."""
    if node.op == "pm":
        positive = (sign > 0) == (node.value == "pm")
        return node.args[0] if positive else Node("neg", node.args)
    return Node(node.op, tuple(with_sign(arg, sign) for arg in node.args), node.value)


def count(node: Node, op: str) -> int:
    """How often an operation is in a tree."""
    return (node.op == op) + sum(count(arg, op) for arg in node.args)
