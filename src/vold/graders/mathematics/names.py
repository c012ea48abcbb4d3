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
    texts = [token.text for token in found]
    if not found or len(found) > 30:
        return ""
    if found[0].kind == "cmd" and found[0].text == "Delta" and len(found) > 1:
        rest = name_of(found[1:])
        return f"Delta {rest}" if rest else ""
    if found[0].kind == "word" and found[0].text == "m" and found[1:] and found[1].text in ("angle", "measuredangle"):
        return name_of(found[1:])
    for rule in (_plain_name, _tuple_of_names, _ratio_of_names, _points, _applied):
        name = rule(found, texts)
        if name:
            return name
    return "".join(texts) if _DERIVATIVE.fullmatch("".join(texts)) else ""


def _plain_name(found: list[Token], texts: list[str]) -> str:
    """A letter, a Greek letter or a noun, with a subscript and primes."""
    head, rest = found[0], found[1:]
    if head.kind in ("word", "text"):
        nouns = all(t.kind in ("word", "text") and t.text.lower() in _NOUNS for t in found)
        if nouns:
            return " ".join(texts).casefold()
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
        name, rest = name + "_" + "".join(t.text for t in rest[2:end]), rest[end + 1 :]
    elif kinds[:1] == ["_"] and len(rest) > 1:
        name, rest = f"{name}_{rest[1].text}", rest[2:]
    while rest and rest[0].kind == "'":
        name, rest = name + "'", rest[1:]
    return name if not rest else ""


def _tuple_of_names(found: list[Token], texts: list[str]) -> str:
    inner = found[1:-1]
    commas = [i for i, t in enumerate(inner) if t.kind == ","]
    if found[0].kind != "(" or found[-1].kind != ")" or not commas:
        return ""
    parts = [inner[a + 1 : b] for a, b in zip([-1, *commas], [*commas, len(inner)], strict=True)]
    names = [_plain_name(part, [t.text for t in part]) if part else "" for part in parts]
    return f"({','.join(names)})" if all(names) else ""


def _ratio_of_names(found: list[Token], texts: list[str]) -> str:
    r"""`V_1:V_2`, "AB:CD" and `\frac{AB}{CD}`."""
    if texts[0] == "frac" and [t.kind for t in found[1:]] == ["{", "word", "}", "{", "word", "}"]:
        parts = [[found[2]], [found[5]]]
        return ":".join(texts[2:6:3]) if all(_points(part, [part[0].text]) for part in parts) else ""
    cuts = [-1, *(i for i, t in enumerate(found) if t.kind == ":"), len(found)]
    parts = [found[a + 1 : b] for a, b in itertools.pairwise(cuts)]
    names = [name_of(part) for part in parts] if len(parts) > 1 else []
    return ":".join(names) if names and all(names) else ""


def _points(found: list[Token], texts: list[str]) -> str:
    """Points in capitals: AB, `\\overline{AB}` (one token), `\\angle ABC`, `|AB|`, [ABC]."""
    if found[0].kind == "cmd" and found[0].text in ("angle", "measuredangle", "triangle") and len(found) == 2:
        return " ".join(texts)
    if (found[0].kind, found[-1].kind) in (("|", "|"), ("[", "]")) and len(found) == 3:
        found, texts = found[1:-1], texts[1:-1]
    name = texts[0]
    name = name.split()[-1] if found[0].kind == "sym" else name
    points = len(found) == 1 and found[0].kind in ("word", "text", "sym") and name.isalpha() and name.isupper()
    return name if points and 2 <= len(name) <= 5 else ""


def _applied(found: list[Token], texts: list[str]) -> str:
    """`f(x)`, `f'(2)`, `f^{-1}(x)`, `P(A | B)`, `\\Pr(A)`, `x(t)`; but `x(x+1)` is a product."""
    opening = next((i for i, token in enumerate(found) if token.kind in ("(", "[")), 0)
    if not opening or found[-1].kind not in (")", "]") or not _closes_last(found, opening):
        return ""
    head, inner = found[:opening], found[opening + 1 : -1]
    if [t.text for t in head[1:]] in (["^", "{", "-", "1", "}"], ["^", "{", "(", "n", ")", "}"]):
        name = head[0].text + "".join(t.text for t in head[1:])
        letter = head[0].text
    else:
        letter, name = head[0].text, _with_marks(head[0].text, head[1:])
    simple = len(inner) == 1 and inner[0].text in _ARGUMENT_LETTERS and letter != inner[0].text
    of_event = len(inner) == 1 and inner[0].kind == "word" and inner[0].text.isupper() and len(letter) == 1
    known = letter in _FUNCTION_LETTERS or letter in ("Pr", "bb P", "mathbb P", "E", "mathbb E", "Var", "phi", "psi")
    single = len(letter) == 1 or known
    return "".join(texts) if name and inner and single and (known or simple or of_event) else ""


def _closes_last(found: list[Token], opening: int) -> bool:
    depth = 0
    for i, token in enumerate(found[opening:], opening):
        depth += (token.kind in ("(", "[", "{", r"\{")) - (token.kind in (")", "]", "}", r"\}"))
        if depth == 0:
            return i == len(found) - 1
    return False
