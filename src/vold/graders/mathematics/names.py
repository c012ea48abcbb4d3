r"""Which left sides of an equation are names: `x`, `f(x)`, `P(A)`, `\angle ABC`, AB, "area"; tuples of names.

A name says what the value on the right is. Every other left side makes the equation a statement that is no value.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vold.graders.mathematics.notation import Token

_NOUNS_TEXT = """
answer area volume perimeter circumference distance length width height depth radius diameter slope speed
velocity acceleration probability mean median mode range total sum product difference quotient ratio cost
price profit time age weight mass number value angle degree base max min maximum minimum domain center centre
vertex focus period amplitude force energy power current voltage resistance density pressure temperature work
"""
_NOUNS = frozenset(_NOUNS_TEXT.split())
_FUNCTION_LETTERS = frozenset("fghFGHPQpq")
_ARGUMENT_LETTERS = frozenset(("t", "n", "theta", "x"))
_DERIVATIVE = re.compile(r"frac\{d[a-z]\}\{d[a-z]\}")


def name_of(found: list[Token]) -> str:
    """The name that a left side is, in one spelling; "" if it is an expression."""
    if not found or len(found) > 30:
        return ""
    if found[0].kind == "cmd" and found[0].text == "Delta" and len(found) > 1:
        rest = name_of(found[1:])
        return f"Delta {rest}" if rest else ""
    if found[0].kind == "word" and found[0].text == "m" and found[1:] and found[1].text in ("angle", "measuredangle"):
        return name_of(found[1:])
    for rule in (_plain_name, _tuple_of_names, _ratio_of_names, _points, _applied):
        name = rule(found)
        if name:
            return name
    return _text(found) if _DERIVATIVE.fullmatch(_text(found)) else ""


def _text(found: list[Token], between: str = "") -> str:
    return between.join(token.text for token in found)


def _split(found: list[Token], kind: str) -> list[list[Token]]:
    cuts = [-1, *(i for i, token in enumerate(found) if token.kind == kind), len(found)]
    return [found[a + 1 : b] for a, b in itertools.pairwise(cuts)]


def _plain_name(found: list[Token]) -> str:
    """A letter, a Greek letter or a noun, with a subscript and primes."""
    head, rest = found[0], found[1:]
    if head.kind in ("word", "text"):
        nouns = all(t.kind in ("word", "text") and t.text.lower() in _NOUNS for t in found)
        if nouns:
            return _text(found, " ").casefold()
        if len(head.text) > 1 or head.text in ("e", "i"):
            return ""
    elif (
        head.kind not in ("cmd", "sym")
        or head.text in ("pi", "infty", "frac", "sqrt", "dollar", "binom")
        or (head.kind == "cmd" and not head.text.islower())
        or (head.kind == "cmd" and (len(found) > 1 and found[1].kind not in ("_", "'", "^")))
    ):
        return ""
    return _with_marks(head.text, rest)


def _with_marks(name: str, rest: list[Token]) -> str:
    kinds = [token.kind for token in rest]
    if kinds[:2] == ["_", "{"] and "}" in kinds:
        end = kinds.index("}")
        name, rest = f"{name}_{_text(rest[2:end])}", rest[end + 1 :]
    elif kinds[:1] == ["_"] and len(rest) > 1:
        name, rest = f"{name}_{rest[1].text}", rest[2:]
    while rest and rest[0].kind == "'":
        name, rest = name + "'", rest[1:]
    return name if not rest else ""


def _tuple_of_names(found: list[Token]) -> str:
    parts = _split(found[1:-1], ",")
    if found[0].kind != "(" or found[-1].kind != ")" or len(parts) < 2:
        return ""
    names = [_plain_name(part) if part else "" for part in parts]
    return f"({','.join(names)})" if all(names) else ""


def _ratio_of_names(found: list[Token]) -> str:
    r"""`V_1:V_2`, "AB:CD" and `\frac{AB}{CD}`."""
    parts = _split(found, ":")
    names = [name_of(part) for part in parts] if len(parts) > 1 else []
    if found[0].text == "frac" and [t.kind for t in found[1:]] == ["{", "word", "}", "{", "word", "}"]:
        names = [_points([found[2]]), _points([found[5]])]
    return ":".join(names) if all(names) else ""


def _points(found: list[Token]) -> str:
    """Points in capitals: AB, `\\overline{AB}` (one token), `\\angle ABC`, `|AB|`, [ABC]."""
    if found[0].kind == "cmd" and found[0].text in ("angle", "measuredangle", "triangle") and len(found) == 2:
        return _text(found, " ")
    if (found[0].kind, found[-1].kind) in (("|", "|"), ("[", "]")) and len(found) == 3:
        found = found[1:-1]
    name = found[0].text.split()[-1] if found[0].kind == "sym" else found[0].text
    points = len(found) == 1 and found[0].kind in ("word", "text", "sym") and name.isalpha() and name.isupper()
    return name if points and 2 <= len(name) <= 5 else ""


def _applied(found: list[Token]) -> str:
    """`f(x)`, `f'(2)`, `f^{-1}(x)`, `P(A | B)`, `\\Pr(A)`, `x(t)`; but `x(x+1)` is a product."""
    opening = next((i for i, token in enumerate(found) if token.kind in ("(", "[")), 0)
    if not opening or found[-1].kind not in (")", "]") or not _closes_last(found, opening):
        return ""
    head, inner = found[:opening], found[opening + 1 : -1]
    letter, raised = head[0].text, _text(head[1:]) in ("^{-1}", "^{(n)}")
    name = _text(head) if raised else _with_marks(letter, head[1:])
    simple = len(inner) == 1 and inner[0].text in _ARGUMENT_LETTERS and letter != inner[0].text
    of_event = len(inner) == 1 and inner[0].kind == "word" and inner[0].text.isupper() and len(letter) == 1
    known = letter in _FUNCTION_LETTERS or letter in ("Pr", "mathbb P", "E", "mathbb E", "Var", "phi", "psi")
    single = len(letter) == 1 or known
    return _text(found) if name and inner and single and (known or simple or of_event) else ""


def _closes_last(found: list[Token], opening: int) -> bool:
    depth = 0
    for i, token in enumerate(found[opening:], opening):
        depth += (token.kind in ("(", "[", "{", r"\{")) - (token.kind in (")", "]", "}", r"\}"))
        if depth == 0:
            return i == len(found) - 1
    return False
