"""Intervals, their unions, and the inequalities that say the same."""

from __future__ import annotations

from vold.graders.mathematics.agree import constant, size
from vold.graders.mathematics.trees import Node

_MIRRORED = {">": "<", "ge": "le"}
_INFINITE = Node("const", (), "inf")


def pieces(node: Node) -> list[Node]:
    """The parts of a union from left to right, those that overlap or touch as one."""
    flat = [piece for arg in node.args for piece in pieces(arg)] if node.op == "union" else [node]
    if not all(piece.op == "tuple" and len(piece.args) == 2 and all(map(constant, piece.args)) for piece in flat):
        return sorted(flat, key=str)
    flat.sort(key=lambda piece: (size(piece.args[0]), str(piece.value)[0] == "("))
    joined = flat[:1]
    for piece in flat[1:]:
        merged = _merged(joined[-1], piece)
        joined[-1:] = [joined[-1], piece] if merged is None else [merged]
    return joined


def _merged(left: Node, right: Node) -> Node | None:
    end, start, last = size(left.args[1]), size(right.args[0]), size(right.args[1])
    opening, closing = str(left.value)[0], str(left.value)[1]
    if end < start or (end == start and closing == ")" and str(right.value)[0] == "("):
        return None
    if last > end or (last == end and str(right.value)[1] == "]"):
        return Node("tuple", (left.args[0], right.args[1]), opening + str(right.value)[1])
    return left


def constraints(node: Node) -> list[tuple[str, Node]]:
    """An inequality as signs ("<", "le", "ne", "=") and what is on their left when 0 is on their right."""
    found = []
    for i, sign in enumerate(signs(node)):
        low, high = node.args[i], node.args[i + 1]
        if sign in _MIRRORED:
            low, high, sign = high, low, _MIRRORED[sign]
        found.append((sign, difference(low, high)))
    return found


def difference(a: Node, b: Node) -> Node:
    """One side of a relation minus the other, without their units."""
    bare = [side.args[0] if side.op == "unit" else side for side in (a, b)]
    return Node("add", (bare[0], Node("neg", (bare[1],))))


def signs(node: Node) -> tuple[str, ...]:
    """The relation signs of an inequality, from left to right."""
    return node.value if isinstance(node.value, tuple) else ()


def solved(node: Node) -> bool:
    """Whether all sides of a relation are names or constants."""
    return all(side.op == "sym" or constant(side) for side in node.args)


def plain(node: Node) -> bool:
    """Whether an interval or a union can be nothing else: (1, 2) may be a point as well."""
    if node.op == "union":
        return True
    ends = any(arg in (_INFINITE, Node("neg", (_INFINITE,))) for arg in node.args)
    return node.op == "tuple" and len(node.args) == 2 and (node.value != "()" or ends)


def as_interval(node: Node) -> Node | None:
    """The interval of one name that an inequality, or several with "or" between them, stands for."""
    if node.op == "list" and node.value != "and":
        parts = [as_interval(item) if item.op == "inequality" else None for item in node.args]
        return None if None in parts else Node("union", tuple(part for part in parts if part is not None))
    if node.op != "inequality" or not solved(node) or set(signs(node)) & {"ne", "="}:
        return None
    names = [i for i, side in enumerate(node.args) if side.op == "sym"]
    if len(names) != 1 or len(node.args) not in (2, 3) or (len(node.args) == 3 and names != [1]):
        return None
    low, high = (Node("neg", (_INFINITE,)), "("), (_INFINITE, ")")
    for i, sign in enumerate(signs(node)):
        bound = node.args[i + 1] if i == names[0] else node.args[i]
        is_upper = (i == names[0]) == (sign in ("<", "le"))
        closed = sign in ("le", "ge")
        if is_upper:
            high = bound, "]" if closed else ")"
        else:
            low = bound, "[" if closed else "("
    return Node("tuple", (low[0], high[0]), low[1] + high[1])
