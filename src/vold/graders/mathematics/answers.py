r"""What a whole answer is: a value with its unit, a list, an equation with a name on its left, an inequality, words.

The left side of an equation is left out only where it names the value on the right: `x = 3`, `f(x) = 3`, `P(A) = 3`,
`\angle A = 3`, "area = 3". `2x = 6` is an equation and no value.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vold.graders.extract import balanced, squeeze
from vold.graders.mathematics import units
from vold.graders.mathematics.atoms import Atoms
from vold.graders.mathematics.brackets import Unsupported, shows_degrees
from vold.graders.mathematics.names import name_of
from vold.graders.mathematics.notation import CONTROL, TEXT_COMMANDS, Token, Unreadable, tidy, tokens
from vold.graders.mathematics.trees import Node

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "le", ">=": "ge", "!=": "ne", ":=": "=", "le": "le", "ge": "ge", "ne": "ne",
    "approx": "approx", "in": "in", "equiv": "equiv",
}  # fmt: skip
_NAMING = ("=", "in", "equiv", "approx")
_OPENING, _CLOSING = ("(", "[", r"\{", "{", "begin"), (")", "]", r"\}", "}", "end")
_SHORT_WORDS = frozenset(["no", "yes", "odd", "all", "one", "two", "six", "ten", "red", "dne"])
_IN_TEXT = re.compile(rf"\\(?:{'|'.join(sorted(TEXT_COMMANDS))})\s*\{{([^{{}}]*)\}}")
_WORDS = re.compile(r"[A-Za-z]+(?:[ ,'-]+[A-Za-z]+)*")


class Answer(NamedTuple):
    """An answer as a tree, or as `words`. `ambiguous`: a letter in it may be a unit or a variable."""

    tree: Node | None
    words: str = ""
    ambiguous: bool = False


def read(text: str, *, letters_as_units: bool = True) -> Answer:
    """Read an answer.

    Raises:
        Unreadable: it is no answer whose parts are all understood.
    """
    found = tokens(text)
    words = _as_words(found, text)
    if words:
        return Answer(None, words)
    parser = Answers(found, letters_as_units=letters_as_units)
    try:
        if len(found) > 2 and {found[0].text, found[-1].text} <= {"N", "S", "E", "W"}:
            return Answer(_bearing(found))
        return Answer(parser.answer(), "", parser.ambiguous)
    except Unsupported:
        return Answer(Node("verbatim", (), tuple(token.text for token in found)))
    except RecursionError:
        raise Unreadable("nested too deep") from None


def _bearing(found: list[Token]) -> Node:
    r"""`N 30^\circ E`, which is no product: the letters have an order."""
    ends = [Node("sym", (), token.text) for token in (found[0], found[-1])]
    return Node("tuple", (ends[0], Answers(found[1:-1]).answer(), ends[1]), "bearing")


def prose(text: str) -> str:
    """The text of an answer in words and figures, without markup, blanks, case and end stop; "" if it has no word."""
    plain = re.sub(r"\\[dtc]frac", r"\\frac", tidy(text.replace("$", " ")))
    plain = squeeze(_IN_TEXT.sub(r" \1 ", plain)).strip(" .,;:").casefold()
    if CONTROL.search(text):
        return ""
    wordy = re.search(r"[a-z]{2,}", re.sub(r"\\[a-z]+", " ", plain))
    return "".join(plain.split()) if wordy and "?" not in plain and balanced(plain) else ""


def _as_words(found: list[Token], text: str) -> str:
    """An answer that is words and nothing else, folded; "" if it is not."""
    if any(token.kind not in ("word", "text", "-", "'", ",") for token in found):
        return ""
    plain = squeeze(_IN_TEXT.sub(r" \1 ", tidy(text))).strip(" .,")
    if not _WORDS.fullmatch(plain) or len(plain) == 1 or plain in ("pi", "infinity", "inf"):
        return ""
    lists = [word for word in re.split(r"[ ,]+(?:or|and)?\b[ ,]*", plain) if word]
    if all(len(word) == 1 for word in lists):
        return ""
    letters = len(plain) >= 4 and not re.search(r"\bd[a-z]\b", plain)
    in_text = any(token.kind == "text" for token in found)
    known = letters or in_text or plain.lower() in _SHORT_WORDS or (len(plain) > 1 and plain.isupper())
    return plain.casefold() if known and not _product(plain, in_text) else ""


def _product(plain: str, in_text: bool) -> bool:
    """Whether bare letters may be factors: "a b" and "x, y", but not "no solution"."""
    return (
        not in_text
        and all(len(word) < 3 for word in re.split(r"[ ,'-]+", plain))
        and not plain.isupper()
        and (plain.lower() not in _SHORT_WORDS)
    )


class Answers(Atoms):
    """The part of the parser that reads whole answers."""

    def answer(self) -> Node:
        """All of the tokens as one answer."""
        items, joined = [], ""
        while True:
            items.append(self.item())
            separator = self._separator()
            if not separator:
                break
            joined = joined if separator == "," else separator
            if not self.peek().kind and separator == ",":
                break
        if self.peek().kind:
            self.stop()
        return items[0] if len(items) == 1 else Node("list", tuple(items), joined)

    def _separator(self) -> str:
        """Step over what separates the items of a list; which it is, "" if there is none."""
        found = ""
        while self.peek().kind in (",", ";") or self.peek().joins:
            word = self.peek().text.lower()
            found = word if word in ("or", "and") else found or ","
            self.at += 1
        return found

    def element(self) -> Node:
        """An element of a bracket: a value with its unit, or an equation."""
        return self.item()

    def item(self) -> Node:
        """One item: sides with relations between them."""
        if self.cmd("approx") or self.peek().kind == "=":
            self.at += 1
        first = self._first_relation()
        if first is None:
            return self.quantity()
        label = name_of(self.found[self.at : first])
        if label and _sign(self.found[first]) in _NAMING:
            self.at = first + 1
            return self._labelled(label)
        return _related(*self._sides())

    def _sides(self) -> tuple[list[Node], list[str]]:
        """Quantities, and the relation signs between them."""
        sides, signs = [self.quantity()], []
        while sign := _sign(self.peek()):
            self.at += 1
            signs.append(sign)
            sides.append(self.quantity())
        return sides, signs

    def _labelled(self, label: str) -> Node:
        values, signs = self._sides()
        if not set(signs) <= {"=", "approx"}:
            raise Unreadable("not LaTeX maths")
        if "approx" in signs:
            cut = signs.index("approx")
            values[cut:] = [Node("rounded", (values[cut], values[-1]))]
        return Node("label", tuple(values), label)

    def _first_relation(self) -> int | None:
        """Where the first relation sign of this item is, outside all brackets."""
        depth = 0
        for at in range(self.at, len(self.found)):
            token = self.found[at]
            depth += (token.kind in _OPENING) - (token.kind in _CLOSING)
            if depth < 0 or (depth == 0 and (token.joins or token.kind in (",", ";", "&", r"\\"))):
                return None
            if depth == 0 and _sign(token):
                return at
        return None

    # -- quantities --------------------------------------------------------------------------------------------------

    def quantity(self) -> Node:
        """A value with its unit, or several in a row: "5 ft 6 in"."""
        parts = [self._one_quantity()]
        while parts[-1].op == "unit" and self.peek().kind == "num":
            parts.append(self._one_quantity())
        if len(parts) > 1 and any(part.op != "unit" for part in parts):
            raise Unreadable("two numbers side by side")
        whole = parts[0] if len(parts) == 1 else Node("compound", tuple(parts))
        modulus = self._modulus()
        return whole if modulus is None else Node("modulus", (whole, modulus))

    def _one_quantity(self) -> Node:
        before, self.unit_may_follow = self.unit_may_follow, True
        value = self.expression()
        found = self._unit(value)
        self.unit_may_follow = before
        if found is None:
            return _lifted(value)
        unit, self.at = found
        inner = _lifted(value)
        if inner.op == "unit":
            if inner.value != unit:
                raise Unreadable("two units")
            inner = inner.args[0]
        return Node("unit", (inner,), unit)

    def _unit(self, value: Node) -> tuple[units.Unit, int] | None:
        token = self.peek()
        if not token.kind or not (self.at_unit() or token.kind == "^"):
            return None
        short = token.kind != "text" or len(token.text) == 1
        return None if short and not _has_only_numbers(value) else units.match(self.found, self.at)

    def _modulus(self) -> Node | None:
        """`\\pmod{7}` or "(mod 7)"."""
        if self.cmd("pmod"):
            self.at += 1
            return self.argument()
        bracketed = self.peek().kind == "(" and self.peek(1).text in ("mod", "bmod")
        if bracketed:
            self.at += 2
            modulus = self.expression()
            self.take(")")
            return modulus
        return None

    # -- environments ------------------------------------------------------------------------------------------------

    def environment(self) -> Node:
        """A matrix; or the lines of `cases` and `aligned`, which are a list unless they have conditions."""
        name = self.peek().text
        if name not in ("cases", "aligned", "align", "gathered", "split"):
            return super().environment()
        columns = self._columns()
        if name == "cases" and columns:
            raise Unsupported("a definition by cases")
        for at in reversed(columns):
            del self.found[at]
        self.at += 1
        lines = [cell for row in self.rows(name, between=(",", ";")) for cell in row]
        return lines[0] if len(lines) == 1 else Node("list", tuple(lines), "and")

    def _columns(self) -> list[int]:
        """Where the columns of the environment that begins here are separated; those inside it have their own."""
        depth, found = 0, []
        for at in range(self.at, len(self.found)):
            kind = self.found[at].kind
            depth += (kind == "begin") - (kind == "end")
            if depth == 0:
                break
            if depth == 1 and kind == "&":
                found.append(at)
        return found


def _sign(token: Token) -> str:
    return _RELATIONS.get(token.text, "") if token.kind in ("cmd", token.text) else ""


def _related(sides: list[Node], signs: list[str]) -> Node:
    if "approx" in signs:
        return (
            Node("rounded", (sides[0], sides[-1])) if signs == ["approx"] else _related(*_before_approx(sides, signs))
        )
    if set(signs) == {"="}:
        return Node("equation", tuple(sides))
    if set(signs) <= {"<", ">", "le", "ge", "ne", "="}:
        return Node("inequality", tuple(sides), tuple(signs))
    raise Unsupported("a relation that is no equation and no inequality")


def _before_approx(sides: list[Node], signs: list[str]) -> tuple[list[Node], list[str]]:
    cut = signs.index("approx")
    if cut == 0:
        raise Unreadable("not LaTeX maths")
    return sides[: cut + 1], signs[:cut]


def _lifted(value: Node) -> Node:
    """A percent sign, a degree sign or money in a value becomes the unit of the whole."""
    if value.op == "neg" and value.args[0].op in ("unit", "pct"):
        inner = _lifted(value.args[0])
        return Node("unit", (Node("neg", inner.args),), inner.value)
    if value.op == "pct":
        return Node("unit", value.args, (("%", 1),))
    if value.op == "mul" and value.args[0].op == "unit" and all(a.op == "num" for a in value.args[1:]):
        return Node("unit", (Node("mul", (*value.args[0].args, *value.args[1:])),), value.args[0].value)
    if value.op != "unit" and shows_degrees(value):
        return Node("unit", (value,), (("deg", 1),))
    return value


def _has_only_numbers(node: Node) -> bool:
    return node.op not in ("sym", "apply", "tuple") and all(map(_has_only_numbers, node.args))
