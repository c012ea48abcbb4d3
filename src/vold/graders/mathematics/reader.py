"""What every part of the parser does: look at tokens, step over them, take arguments and subscripts, see a unit."""

from __future__ import annotations

from fractions import Fraction

from vold.graders.mathematics import units
from vold.graders.mathematics.notation import Token, Unreadable
from vold.graders.mathematics.trees import Node

MAX_DEPTH = 60
"""Deeper nesting of any kind is not read."""

_ENDS = frozenset(["", ",", ";", ")", "]", "}", r"\}", "=", "<", ">", "&", r"\\", "end", "<=", ">=", "!=", "|"])


class Reader:
    """Tokens, and how far they have been read."""

    in_bars = False
    """Whether what is read stands between bars, where the next bar closes."""
    closes_set = False
    """Whether what is read stands in the braces of a set, where a bar begins a condition."""

    def __init__(self, found: list[Token], *, letters_as_units: bool = True) -> None:
        self.found, self.at, self.depth = found, 0, 0
        self.letters_as_units, self.ambiguous = letters_as_units, False
        self.unit_may_follow = False

    def peek(self, ahead: int = 0) -> Token:
        """The next token; an empty one at the end."""
        at = self.at + ahead
        return self.found[at] if at < len(self.found) else Token("", "")

    def cmd(self, *names: str) -> bool:
        """Whether the next token is one of these commands."""
        token = self.peek()
        return token.kind == "cmd" and token.text in names

    def take(self, kind: str) -> None:
        """Step over a token of a kind, or refuse."""
        if self.peek().kind != kind:
            raise Unreadable("not LaTeX maths")
        self.at += 1

    def next(self) -> str:
        """The text of the next token, stepped over."""
        text = self.peek().text
        self.at += 1
        return text

    def nested(self) -> None:
        """Count one level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deep")

    def inner(self) -> Node:
        """An expression inside a command or bars, where no unit stands."""
        before, self.unit_may_follow = self.unit_may_follow, False
        found = self.expression()
        self.unit_may_follow = before
        return found

    def expression(self) -> Node:
        """An expression; `expressions` reads it."""
        raise NotImplementedError

    def atom(self) -> Node:
        """A number, a name, a function with its argument, or something in brackets; `atoms` reads it."""
        raise NotImplementedError

    def subscript(self) -> str:
        """The text of a subscript, without its braces."""
        if self.peek().kind == "{":
            depth = 0
            parts: list[str] = []
            while True:
                token = self.peek()
                if not token.kind:
                    raise Unreadable("braces that do not match")
                self.at += 1
                depth += (token.kind == "{") - (token.kind == "}")
                if depth == 0:
                    return "".join(parts)
                if token.kind not in ("{", "}"):
                    parts.append(token.text)
        token = self.peek()
        if token.kind not in ("num", "word", "text", "cmd", "sym"):
            raise Unreadable("not LaTeX maths")
        if token.kind == "word" and len(token.text) > 1:
            self._split_word()
            token = self.peek()
        self.at += 1
        return token.text

    def _split_word(self) -> None:
        """Cut the first letter off the word that comes next."""
        word = self.peek()
        self.found[self.at : self.at + 1] = [
            Token(word.kind, word.text[0], word.spaced),
            Token(word.kind, word.text[1:]),
        ]

    def argument(self, *, single_digit: bool = False, sign: bool = False) -> Node:
        """The argument of a command: a group, or the next sign alone."""
        token = self.peek()
        if token.kind == "{":
            self.at += 1
            inside = self.inner()
            self.take("}")
            return inside
        if sign and token.kind in ("-", "+"):
            self.at += 1
            inside = self.argument()
            return Node("neg", (inside,)) if token.kind == "-" else inside
        if token.kind == "word" and len(token.text) > 1 and token.text not in ("pi", "inf"):
            self._split_word()
        if single_digit and token.kind == "num" and len(token.text) > 1:
            if not token.text.isdigit() or len(token.text) != 2 or self.found[self.at - 1].text != "frac":
                raise Unreadable("not LaTeX maths")
            digits = [Token("num", digit, False, Fraction(int(digit))) for digit in token.text]
            self.found[self.at : self.at + 1] = digits
        return self.atom()

    def at_unit(self) -> bool:
        """Whether a unit stands here and the quantity ends behind it."""
        token, last = self.peek(), self.found[self.at - 1]
        if not self.unit_may_follow or (token.kind in ("word", "{") and self.at == 0):
            return False
        if token.kind == "word" and not self._bare_unit_may_follow(token, last):
            return False
        found = units.match(self.found, self.at)
        if found is None or not self._quantity_ends(found[1]):
            return False
        quotient = any(part.kind in ("/", "^") or part.text == "per" for part in self.found[self.at : found[1]])
        if token.kind == "word" and len(token.text) == 1 and not quotient:
            self.ambiguous = True
            return self.letters_as_units and token.text in units.BARE_LETTERS
        return True

    def _bare_unit_may_follow(self, token: Token, last: Token) -> bool:
        number_before = last.kind in ("num", "}", ")", "text") or (last.kind == "cmd" and last.text in ("pi", "circ"))
        return number_before and (token.spaced or len(token.text) > 1)

    def _quantity_ends(self, at: int) -> bool:
        following = self.found[at] if at < len(self.found) else Token("", "")
        relation = following.kind == "cmd" and following.text in ("le", "ge", "ne", "approx", "pm")
        return following.kind in _ENDS or following.kind == "num" or following.joins or relation
