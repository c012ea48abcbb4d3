"""What stands in brackets: tuples and intervals, sets, groups, absolute values, matrices."""

from __future__ import annotations

from vold.graders.mathematics.expressions import Parser
from vold.graders.mathematics.notation import Unreadable
from vold.graders.mathematics.trees import Node

_MATRICES_TEXT = """
pmatrix bmatrix Bmatrix matrix array smallmatrix psmallmatrix bsmallmatrix vmatrix
"""
_MATRICES = frozenset(_MATRICES_TEXT.split())
_CONDITIONS_TEXT = """
mid to Rightarrow implies Leftrightarrow sim cong notin subset subseteq perp parallel
"""
_CONDITIONS = frozenset(_CONDITIONS_TEXT.split())


class Unsupported(Unreadable):
    """LaTeX that is well formed for all that is known, but not of a kind whose value is worked out."""


class Brackets(Parser):
    """The part of the parser that reads brackets."""

    def elements(self, closing: tuple[str, ...]) -> tuple[tuple[Node, ...], str]:
        """What stands between commas up to a closing bracket, and that bracket."""
        found: list[Node] = []
        while self.peek().kind not in closing:
            found.append(self.element())
            if self.peek().kind in (",", ";"):
                self.at += 1
            elif self.peek().kind not in closing:
                self.stop()
        return tuple(found), self.next()

    def stop(self) -> None:
        """Refuse what comes next; a known relation or condition is well formed, but its value is not worked out."""
        token = self.peek()
        if (token.kind == "cmd" and token.text in _CONDITIONS) or (token.kind in ("|", ":") and self.closes_set):
            raise Unsupported("a notation whose value is not worked out")
        raise Unreadable("words beside the value" if token.kind == "text" else "not LaTeX maths")

    def element(self) -> Node:
        """One element of a tuple or a set; `answers` adds units."""
        return self.expression()

    def bracket(self) -> Node:
        """`(x)`, `(1, 2)`, `[1, 2)`."""
        self.nested()
        opening = self.peek().kind
        self.at += 1
        found, closing = self.elements((")", "]"))
        self.depth -= 1
        if len(found) == 1 and opening + closing in ("()", "[]"):
            return unlifted(found[0])
        if len(found) < 2:
            raise Unreadable("not LaTeX maths")
        return Node("tuple", found, opening + closing)

    def set(self) -> Node:
        r"""`\{1, 2\}`."""
        self.nested()
        self.at += 1
        before, self.closes_set = self.closes_set, True
        found, _ = self.elements((r"\}",))
        self.closes_set = before
        self.depth -= 1
        return Node("set", found)

    def group(self) -> Node:
        """`{x}`; with commas a set whose backslashes were forgotten."""
        self.nested()
        self.at += 1
        if self.peek().kind == "}":
            self.at += 1
            self.depth -= 1
            return self.atom()  # {}_n C_k and the like
        found, _ = self.elements(("}",))
        self.depth -= 1
        return unlifted(found[0]) if len(found) == 1 else Node("set", found)

    def bars(self) -> Node:
        """`|x|`."""
        self.nested()
        self.at += 1
        before, self.in_bars = self.in_bars, True
        inside = self.inner()
        self.in_bars = before
        self.take("|")
        self.depth -= 1
        return Node("abs", (inside,))

    def environment(self) -> Node:
        """A matrix: rows of cells. All kinds of brackets around it mean the same, but bars are a determinant."""
        self.nested()
        name = self.next()
        rows = self.rows(name)
        self.depth -= 1
        if name not in _MATRICES or len({len(row) for row in rows}) != 1:
            raise Unreadable("a table that is no matrix")
        cells = tuple(cell for row in rows for cell in row)
        matrix = Node("matrix", cells, (len(rows), len(rows[0])))
        return Node("func", (matrix,), "det") if name == "vmatrix" else matrix

    def rows(self, name: str, between: tuple[str, ...] = ("&",)) -> list[list[Node]]:
        """The cells of an environment, row by row, up to its end; `between` is what separates those of a row."""
        rows: list[list[Node]] = [[]]
        while self.peek().kind != "end":
            rows[-1].append(self.element())
            if self.peek().kind == r"\\":
                self.at += 1
                if self.peek().kind != "end":
                    rows.append([])
            elif self.peek().kind in between:
                self.at += 1
            elif self.peek().kind != "end":
                raise Unreadable("not LaTeX maths")
        if self.next() != name:
            raise Unreadable("not LaTeX maths")
        return rows


def unlifted(node: Node) -> Node:
    """A degree or percent sign in brackets belongs to the number there, not to the whole."""
    if node.op == "unit" and node.value == (("%", 1),):
        return Node("pct", node.args)
    return node.args[0] if node.op == "unit" and node.value == (("deg", 1),) and shows_degrees(node.args[0]) else node


def shows_degrees(node: Node) -> bool:
    """Whether a degree sign stands in a sum or a product of this value, outside functions."""
    return node.op == "deg" or (node.op in ("add", "neg", "mul", "div", "pm") and any(map(shows_degrees, node.args)))
