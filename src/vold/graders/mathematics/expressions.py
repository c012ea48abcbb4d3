r"""Tokens to a tree: sums, products, powers, functions, brackets, matrices.

A recursive descent over the tokens of `notation`. What it does not know it refuses: nothing is skipped and no part of
an answer is dropped, so an answer is never paid for the part that could be read.
"""

from __future__ import annotations

import re
from fractions import Fraction

from vold.graders.mathematics import units
from vold.graders.mathematics.notation import Token, Unreadable
from vold.graders.mathematics.reader import Reader
from vold.graders.mathematics.trees import Node, number, primed

_MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "millions": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip


class Parser(Reader):
    """The part of the parser that reads sums, products and powers."""

    # -- sums and products -------------------------------------------------------------------------------------------

    def expression(self) -> Node:
        """A union or difference of sets, or a sum."""
        left = self.sum()
        while self.cmd("cup", "cap", "setminus") or self._letter_union():
            name = self.next()
            left = Node({"U": "union", "cup": "union"}.get(name, name), (left, self.sum()))
        if self.cmd("choose", "over"):
            name = self.next()
            left = Node("binom" if name == "choose" else "div", (left, self.sum()))
        return left

    def _letter_union(self) -> bool:
        token, last = self.peek(), self.found[self.at - 1]
        return token == Token("word", "U", token.spaced) and last.kind in (")", "]") and self.peek(1).kind in ("(", "[")

    def sum(self) -> Node:
        """Terms with signs between them."""
        self.nested()
        terms = [self._signed()]
        while self.peek().kind in ("+", "-") or self.cmd("pm", "mp"):
            terms.append(self._signed())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signed(self) -> Node:
        negative, plus_minus = False, ""
        while self.peek().kind in ("+", "-") or self.cmd("pm", "mp"):
            token = self.peek()
            if plus_minus and token.kind == "cmd":
                raise Unreadable("not LaTeX maths")
            negative ^= token.kind == "-"
            plus_minus = token.text if token.kind == "cmd" else plus_minus
            self.at += 1
        term = self.product()
        term = Node("neg", (term,)) if negative else term
        return Node("pm", (term,), plus_minus) if plus_minus else term

    def product(self) -> Node:
        """Factors with signs of multiplication and division between them; what is only side by side binds tighter."""
        left = self._side_by_side()
        while True:
            kind = self.peek().kind
            if kind in ("*", "/") or (kind == ":" and not self.closes_set) or self.cmd("cdot", "times", "bmod"):
                name = self.next()
                if name in ("cdot", "times", "*"):
                    left = Node("mul", (left, self._factor_after_sign()))
                else:
                    left = self._quotient(left, name)
            else:
                return left

    def _factor_after_sign(self) -> Node:
        if self.peek().kind in ("-", "+"):
            negative = self.peek().kind == "-"
            self.at += 1
            right = self._side_by_side()
            return Node("neg", (right,)) if negative else right
        return self._side_by_side()

    def _quotient(self, left: Node, name: str) -> Node:
        start = self.at
        integers = left.op == "num" and self.peek().kind == "num" and self.found[start - 2].kind == "num"
        if name == "/" and integers and self.peek(1).kind in ("word", "cmd", "sym", "("):
            # "1/2x" is half of x, as people write it, and "a/2b" is a over 2b
            half = Node("div", (left, self.power()))
            return self._more(half) if self._starts_factor() else half
        clock = self.peek()
        right = self._factor_after_sign()
        if name == ":" and clock.kind == "num" and re.fullmatch(r"0\d", clock.text):
            return Node("named", (left, right), "clock")  # 3:05 is a time
        if name == "bmod":
            return Node("mod", (left, right))
        if name == ":" or left.op == "ratio":
            terms = left.args if left.op == "ratio" else (left,)
            return Node("ratio", (*terms, right))
        if right.op == "pct" and left.op != "pct":
            return Node("pct", (Node("div", (left, *right.args)),))
        return Node("div", (left, right))

    def _side_by_side(self) -> Node:
        mixed = self._mixed()
        left = mixed if mixed is not None else self.power()
        return self._more(left)

    def _more(self, left: Node) -> Node:
        factors = [left]
        while self._starts_factor():
            token = self.peek()
            if token.kind == "num" and factors[-1].op not in ("pow", "fact") and self._closes_with_number():
                raise Unreadable("two numbers side by side")
            if token.text in _MULTIPLIERS and token.kind in ("word", "text"):
                self.at += 1
                factors.append(number(_MULTIPLIERS[token.text]))
                continue
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def _closes_with_number(self) -> bool:
        last = self.found[self.at - 1]
        return last.kind in ("num", "}", "%", "!", "'") or (last.kind == "cmd" and last.text == "circ")

    def _mixed(self) -> Node | None:
        r"""`2\frac{1}{2}` and "2 1/2": a whole number with a proper fraction of whole numbers behind it."""
        whole = self.peek()
        if whole.kind != "num" or whole.places or whole.value.denominator != 1:
            return None
        start = self.at
        self.at += 1
        part = self._plain_fraction()
        following = self.peek()
        if part is not None and 0 < part < 1 and following.kind not in ("^", "!", "_"):
            return number(whole.value + part)
        self.at = start
        return None

    def _plain_fraction(self) -> Fraction | None:
        if self.cmd("frac"):
            self.at += 1
            found = self.argument(single_digit=True), self.argument(single_digit=True)
            values = [node.number()[0] for node in found if node.op == "num"]
            return values[0] / values[1] if len(values) == 2 and values[1] and _whole(values) else None
        above, below = self.peek(), self.peek(2)
        if above.kind == below.kind == "num" and above.spaced and self.peek(1).kind == "/" and below.value:
            self.at += 3
            return above.value / below.value if _whole([above.value, below.value]) else None
        return None

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("word", "text"):
            return token.text in _MULTIPLIERS or (not self.at_unit() and not token.joins)
        if token.kind == "cmd":
            return token.text not in _NOT_FACTORS and not self.at_unit()
        if token.kind == "{":
            return not self.at_unit()
        if token.kind == "|":
            return not self.in_bars and not self.closes_set
        return token.kind in ("num", "(", "[", r"\{", "sym", "begin")

    # -- powers and atoms --------------------------------------------------------------------------------------------

    def power(self) -> Node:
        """An atom with what is behind it: powers, factorials, percent signs, degrees."""
        self.nested()
        base = self.atom()
        while True:
            changed = self._postfix(base)
            if changed is None:
                self.depth -= 1
                return base
            base = changed

    def _postfix(self, base: Node) -> Node | None:
        token = self.peek()
        if token.kind == "^":
            return self._raised(base)
        if token.kind == "!":
            self.at += 1
            double = self.peek().kind == "!"
            self.at += double
            return Node("fact2" if double else "fact", (base,))
        if token.kind == "'":
            self.at += 1
            return primed(base)
        if token.kind == "_":
            self.at += 1
            return Node("named", (base,), self.subscript())
        if token.kind == "%":
            self.at += 1
            return Node("pct", (base,))
        if self.cmd("degree"):
            self.at += 1
            return Node("deg", (base,))
        return None

    def _raised(self, base: Node) -> Node | None:
        end = units.degree_sign(self.found, self.at)
        if end is not None:
            if end[0]:
                self.at = end[1]
                return self._minutes(Node("deg", (base,)))
            return None  # a temperature: the quantity ends here
        self.at += 1
        if self.peek().kind == "'" or self.cmd("prime"):
            self.at += 1
            return primed(base)
        exponent = self.argument(sign=True)
        if exponent == Node("sym", (), "prime"):
            return primed(base)
        return Node("pow", (base, exponent))

    def _minutes(self, degrees: Node) -> Node:
        r"""`30^\circ 15'` and `30^\circ 15' 20''`: minutes and seconds of arc are added to the degrees."""
        parts = [degrees]
        for marks in (1, 2):
            if self.peek().kind == "num" and all(self.peek(1 + n).kind == "'" for n in range(marks)):
                parts.append(Node("deg", (number(self.peek().value / 60**marks),)))
                self.at += 1 + marks
        return parts[0] if len(parts) == 1 else Node("add", tuple(parts))


_NOT_FACTORS_TEXT = """
cdot times bmod pmod pm mp choose over cup cap setminus le ge ne approx in equiv circ degree rfloor rceil to
Rightarrow implies Leftrightarrow mid sim cong notin subset subseteq prime perp parallel mapsto
"""
_NOT_FACTORS = frozenset(_NOT_FACTORS_TEXT.split())


def _whole(values: list[Fraction]) -> bool:
    return all(value.denominator == 1 for value in values)
