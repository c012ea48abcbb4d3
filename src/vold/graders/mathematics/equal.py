r"""Compare two mathematical answers. Bounded in time and memory; the worker process is a second guard.

What counts as equal, where notations leave room:

- A number is exact: 1/3 is not 0.333. A decimal with six places or more that is the exact value rounded is equal to it,
  and so is what a program prints for the value.
- A percent sign, a base and the kind of brackets are part of the answer. A unit may be left out, but two different
  units are wrong; units are not converted.
- "1,000" is the number 1000. "1,2,2" equals "1,2": a list is a set.
- (1,2) and `\langle1,2\rangle` are the same ordered pair, and the open interval as well; no list, no matrix and no
  inequality is equal to it. [1,2) and `(1,\infty)` can be intervals only, and equal the inequality that says the same.
- All brackets around a matrix mean the same. A row is not a column, and neither is a tuple.
- "x = 3" equals 3 and `f(x) = x+1` equals x+1. `2x = 6` is an equation: it equals `x - 3 = 0`, but not 3 or "x = 3".
- An expression that was never worked out ("2*3" for 6) equals its value.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from mpmath import mp

from vold.graders.mathematics import answers
from vold.graders.mathematics.agree import DIGITS, constant, far_apart, proportional, rough, same_value, size
from vold.graders.mathematics.arithmetic import ledger
from vold.graders.mathematics.intervals import as_interval, constraints, difference, pieces, plain, solved
from vold.graders.mathematics.notation import Unreadable
from vold.graders.mathematics.trees import Node, count, with_sign
from vold.graders.mathematics.units import spelt
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE

if TYPE_CHECKING:
    from vold.graders.mathematics.answers import Answer


class _Different(Exception):
    """The answers differ, and how."""


def compare(reference: str, answer: str) -> str:
    """Return a note: `EQUAL`, or why not, beginning with `DIFFERENT` or `UNREADABLE`."""
    notes = []
    for letters_as_units in (True, False):
        try:
            with mp.workdps(DIGITS[0]):
                note, again = _compare(reference, answer, letters_as_units)
        except RecursionError:
            return f"{UNREADABLE}: nested too deep"
        notes.append(note)
        if note == EQUAL or not again:
            return note
    return notes[0]


def _compare(reference: str, answer: str, letters_as_units: bool) -> tuple[str, bool]:
    ledger.open()
    fault, gold = _reference(reference, letters_as_units)
    ledger.open()  # what a reference costs is not counted again
    if gold is None:
        if not answers.prose(reference):
            return f"{UNREADABLE} reference: {fault}", False
        return (EQUAL if _same_prose(reference, answer) else f"{DIFFERENT}: words differ"), False
    try:
        found = answers.read(answer, letters_as_units=letters_as_units)
        _check(gold, found)
    except Unreadable as problem:
        return (EQUAL if _same_prose(reference, answer) else f"{UNREADABLE}: {problem}"), gold.ambiguous
    except _Different as problem:
        why = str(problem)
        return f"{DIFFERENT}: {why}" if why else DIFFERENT, gold.ambiguous or found.ambiguous
    return EQUAL, False


@functools.lru_cache(maxsize=1024)
def _reference(text: str, letters_as_units: bool) -> tuple[str, Answer | None]:
    """A reference that equals itself, or what is wrong with it: "1=2" and 1/0 do not."""
    try:
        gold = answers.read(text, letters_as_units=letters_as_units)
        _check(gold, gold)
    except (Unreadable, _Different) as problem:
        return str(problem) or "not equal to itself", None
    return "", gold


def _same_prose(reference: str, answer: str) -> bool:
    """Whether both are the same words and figures: "June 20"."""
    return answers.prose(reference) == answers.prose(answer) != ""


def _check(gold: Answer, found: Answer) -> None:
    if gold.tree is None or found.tree is None:
        if gold.words != found.words:
            raise _Different("words differ")
        return
    _same(gold.tree, found.tree)


def _same(gold: Node, found: Node) -> None:
    """Compare two trees.

    Raises:
        _Different: they are not equal.
        Unreadable: one of them has no value.
    """
    gold, found = _expanded(gold, found), _expanded(found, gold)
    rule = next((_BY_KIND[op] for op in _BY_KIND if op in (gold.op, found.op)), _same_values)
    rule(gold, found)


def _expanded(node: Node, other: Node) -> Node:
    """What a tree stands for: a set of one element for that element, a true equation of numbers for the number."""
    if node.op == "set" and len(node.args) == 1:
        return _expanded(node.args[0], other)
    if node.op == "equation":
        return _expanded_equation(node)
    if node.op == "rounded":
        return _exact_side(node)
    if plain(other):
        return as_interval(node) or node
    if node.op not in ("inequality", "verbatim") and count(node, "pm") == 1:
        return Node("list", (with_sign(node, 1), with_sign(node, -1)), "or")
    return _expanded_list(node, other)


def _expanded_equation(node: Node) -> Node:
    if all(constant(side) for side in node.args):
        _all_equal(node.args)
        return node.args[-1]
    named = len(node.args) == 2 and node.args[1].op == "sym" and constant(node.args[0])
    return Node("label", (node.args[0],), node.args[1].value) if named else node


def _expanded_list(node: Node, other: Node) -> Node:
    """A named tuple as a list of named values, and "5 ft and 6 in" as one length, where the other side is such."""
    if other.op == "compound" and node.op == "list" and all(item.op == "unit" for item in node.args):
        return Node("compound", node.args)
    named = other.op == "list" and all(item.op == "label" for item in other.args)
    if named and node.op == "label" and str(node.value)[:1] == "(" and node.args[-1].op == "tuple":
        names, values = str(node.value)[1:-1].split(","), node.args[-1].args
        if len(names) == len(values):
            return Node("list", tuple(Node("label", (v,), n) for n, v in zip(names, values, strict=True)), ",")
    return node


def _exact_side(node: Node) -> Node:
    """The exact side of an approximation: 1/3 of "1/3 = 0.333..."."""
    exact, near = node.args
    if constant(exact) and constant(near) and abs(size(exact) - size(near)) > abs(size(exact)) / 20:
        raise _Different("equates different numbers")
    return exact


# -- lists and labels ------------------------------------------------------------------------------------------------


def _same_lists(gold: Node, found: Node) -> None:
    if "tuple" in (gold.op, found.op) or "matrix" in (gold.op, found.op):
        raise _Different("an ordered tuple or interval on one side, a list on the other")
    left, right = _items(gold), _items(found)
    relations = any(item.op == "inequality" for item in (*left, *right))
    joined = {gold.value, found.value} & {"or", "and"}
    if relations and len(joined) == 2:
        raise _Different('"and" on one side, "or" on the other')
    if gold.op != found.op and "list" not in (gold.op, found.op):
        raise _Different("")
    matched: set[int] = set()
    sizes = [rough(item) for item in right]
    for item in left:
        own = rough(item)
        near = (i for i, other in enumerate(sizes) if i not in matched and not far_apart(own, other))
        places = [i for i in near if _equal(item, right[i])]
        if not places and not any(_equal(item, right[i]) for i in matched):
            raise _Different("")
        matched.update(places)
    if len(matched) != len(right):
        raise _Different("")


def _items(node: Node) -> list[Node]:
    if node.op == "label" and node.args[-1].op in ("list", "set"):  # "x is one of {1, 2}"
        node = node.args[-1]
    if node.op not in ("list", "set"):
        return [node]
    found: list[Node] = []
    for item in node.args:
        expanded = _expanded(item, item)
        found += expanded.args if expanded.op == "list" else [expanded]
    for item in found:
        _resolved(item)
    return found


def _equal(gold: Node, found: Node) -> bool:
    try:
        _same(gold, found)
    except _Different:
        return False
    return True


def _resolved(node: Node) -> Node:
    """The value behind a name. What a chain of equals signs joins must be equal, but may work towards a number."""
    if node.op != "label":
        return node
    values = [_exact_side(value) if value.op == "rounded" else value for value in node.args]
    last = values[-1]
    _all_equal([last, *(value for value in values[:-1] if constant(value) or not constant(last))])
    return last


def _all_equal(values: Any) -> None:
    if not all(_equal(values[0], other) for other in values[1:]):
        raise _Different("equates different numbers")


def _same_labelled(gold: Node, found: Node) -> None:
    if gold.op == found.op == "label" and gold.value != found.value:
        raise _Different("another name")
    value, other = _resolved(gold), _resolved(found)
    if "equation" in (gold.op, found.op):
        if gold.op == "label" and constant(value):
            raise _Different("an equation that is not solved")
        _same_equations(_as_equation(gold), _as_equation(found))
        return
    _same(value, other)


def _as_equation(node: Node) -> Node:
    return node if node.op == "equation" else Node("equation", (_name(str(node.value)), node.args[-1]))


def _name(label: str) -> Node:
    try:
        tree = answers.read(label).tree
    except Unreadable:
        tree = None
    return tree if tree is not None else Node("sym", (), label)


# -- relations -------------------------------------------------------------------------------------------------------


def _same_equations(gold: Node, found: Node) -> None:
    if gold.op != found.op:
        raise _Different("an equation on one side, a value on the other")
    both = len(gold.args) == len(found.args) == 2
    if not both or not proportional(difference(*gold.args), difference(*found.args), positive=False):
        _same_chains(gold, found)


def _same_chains(gold: Node, found: Node) -> None:
    if len(gold.args) != len(found.args):
        raise _Different("")
    for a, b in zip(gold.args, found.args, strict=True):
        _same(a, b)


def _same_inequalities(gold: Node, found: Node) -> None:
    if gold.op != found.op:
        raise _Different("an inequality on one side, a value on the other")
    left, right = constraints(gold), constraints(found)
    if len(left) != len(right) or (solved(gold) and not solved(found)):
        raise _Different("")
    for sign, tree in left:
        place = next(
            (i for i, (s, t) in enumerate(right) if s == sign and proportional(tree, t, positive=s != "ne")), None
        )
        if place is None:
            raise _Different("")
        right.pop(place)


def _bare(node: Node) -> Node:
    return node.args[0] if node.op == "unit" else node


# -- values ----------------------------------------------------------------------------------------------------------


def _same_units(gold: Node, found: Node) -> None:
    units = [node.value if node.op == "unit" else () for node in (gold, found)]
    if ((("%", 1),) in units) and units[0] != units[1]:
        raise _Different("a percentage on one side only")
    if all(units) and units[0] != units[1]:
        raise _Different(f"units differ: {spelt(units[1])} for {spelt(units[0])}")
    _same(_bare(gold), _bare(found))


def _same_parts(gold: Node, found: Node) -> None:
    """Tuples, compounds of units and what is left of set operations: the same parts in the same order."""
    if gold.op != found.op and "tuple" in (gold.op, found.op) and not {gold.op, found.op} & {"matrix", "compound"}:
        _same_values(gold, found)  # what is no tuple may have one as its value: 2(1, 2)
        return
    if gold.op != found.op or gold.value != found.value or len(gold.args) != len(found.args):
        raise _Different("")
    _same_chains(gold, found)


def _same_unions(gold: Node, found: Node) -> None:
    _same_chains(*(Node("union", tuple(pieces(node))) for node in (gold, found)))


def _same_moduli(gold: Node, found: Node) -> None:
    parts = [node.args if node.op == "modulus" else (node, None) for node in (gold, found)]
    (a, m), (b, n) = parts
    if m is not None and n is not None:
        _same(m, n)
        _same(*(Node("mod", (part, m)) for part in (a, b)))
        return
    _same(a, b)


def _verbatim(gold: Node, found: Node) -> None:
    if gold != found:
        raise _Different("")


def _same_values(gold: Node, found: Node) -> None:
    if not same_value(gold, found):
        raise _Different("")


_BY_KIND = {
    **dict.fromkeys(("list", "set"), _same_lists),
    "label": _same_labelled,
    "verbatim": _verbatim,
    "equation": _same_equations,
    "inequality": _same_inequalities,
    "unit": _same_units,
    "modulus": _same_moduli,
    "union": _same_unions,
    **dict.fromkeys(("cap", "setminus", "compound", "tuple"), _same_parts),
}
"""Of the kinds that two trees are of, the first in this order decides how they are compared."""


def warm_up() -> None:
    """Fill caches, so that the first answer is not charged for them."""
    compare(r"\frac{1}{2}\sin 30^\circ", r"x=\sqrt{\frac{1}{16}}")
