r"""The `rule` protocol: mark an answer without a judge. What cannot be read scores 0 and is counted, never guessed.

An answer is the content of the last closed `\boxed{}` after the thinking block. Without a box it is what follows the
last "Answer:" or "answer is" of the text, to the end of that line: the form that MMMU-Pro's and We-Math's prompts ask
for. Nothing else is searched: "I am unsure" holds an option I, and "a triangle, so D" an option A.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from vold.evals.numbers import read_number, read_numbers
from vold.graders import get_grader
from vold.graders.choice import LETTERS, option_letters
from vold.graders.extract import Extraction, after_thinking, extract_boxed, squeeze
from vold.graders.outcome import DIFFERENT, EQUAL, NO_BOX, TRUNCATED, UNREADABLE
from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.evals.types import Item
    from vold.types import Finish

SCORING_VERSION = "1"
"""Part of every protocol hash. Change it with any change that can move a score."""

TOLERANCE: dict[str, Decimal] = {"dynamath": Decimal("0.001")}
"""Benchmarks whose floats are compared with an absolute tolerance, and not by rounding to the gold's decimals."""

MAX_TEXT_CHARS = 2000

_ANSWER = re.compile(r"\banswer\b\s*(?:is\b|>?\s*\**\s*[:\uff1a])\s*\**\s*[:\uff1a]?(?P<rest>[^\n]*)", re.IGNORECASE)
_LETTER_THEN_TEXT = re.compile(r"[(\[]?([A-L])[)\]]?(?=\s*$|\s*[.:)\]]\s|\s+\()")
_ARTICLES = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)


def find_answer(response: str, finish: Finish = "stop") -> Extraction:
    r"""The text that is marked, or None and why there is none.

    Example:
        >>> find_answer("Two and two.\n**Answer:** (B)").answer
        '(B)'
    """
    boxed = extract_boxed(response, finish)
    if boxed.answer is not None or boxed.note != NO_BOX:
        return boxed
    text = after_thinking(response)
    found = list(_ANSWER.finditer(text or ""))
    rest = found[-1]["rest"] if found else ""
    rest = rest.strip().strip("*_`$").strip()
    if not rest:
        return Extraction(None, f"{NO_BOX} and no answer line")
    return Extraction(rest, "answer line")


def score(item: Item, response: str, *, finish: Finish = "stop") -> Grade:
    r"""Mark a response by rule; never raises on model text.

    By `item.form`: `choice` reads one option letter that the item has, or an option's text (or value) as a whole;
    `letters` compares sets; `integer` and `float` read a number, a float rounded to `item.precision` decimals or within
    `TOLERANCE`; `list` compares numbers in order; `math` asks Math-Verify; `text` compares words without case, articles
    and final stop, and a number to two decimals.

    Example:
        >>> from vold.evals.types import Item
        >>> two = Item("mathvista", "1", "How many?", (), (), "2", "integer", cluster="1")
        >>> score(two, r"There are \boxed{2}.").score
        1.0
    """
    answer, note = find_answer(response, finish)
    if finish == "length":
        return Grade(0.0, answer, TRUNCATED)
    if answer is None:
        return Grade(0.0, None, note)
    return compare(item, answer)


def compare(item: Item, answer: str) -> Grade:
    """Mark an answer that has been extracted already, by a rule or by a judge."""
    if len(answer) > MAX_TEXT_CHARS:
        return Grade(0.0, answer[:MAX_TEXT_CHARS], f"{UNREADABLE}: longer than {MAX_TEXT_CHARS} characters")
    return _FORMS[item.form](item, answer)


def read_letters(answer: str) -> frozenset[str] | None:
    """The option letters an answer names, or None. Also reads "C (because A fails)": a letter, then a bracket."""
    found = option_letters(answer)
    if found is not None:
        return found
    label = _LETTER_THEN_TEXT.match(answer.strip())
    return frozenset(label[1]) if label else None


def _choice(item: Item, answer: str) -> Grade:
    alphabet = LETTERS[: len(item.options)] if item.options else LETTERS
    texts = [i for i, o in enumerate(item.options) if _same_text(o, answer)]
    letters = read_letters(answer)
    # An option whose text is itself a letter ("B" for variable b) is read as the letter: that is what was asked for.
    if letters is not None and len(letters) == 1 and letters <= set(alphabet):
        found = next(iter(letters))
    elif texts:
        # Duplicate options: any of them is right if one is.
        named = {LETTERS[i] for i in texts}
        found = item.answer if item.answer in named else min(named)
    else:
        return Grade(0.0, answer, f"{UNREADABLE}: neither one option letter nor an option's text")
    return _verdict(found == item.answer, found)


def _letters(item: Item, answer: str) -> Grade:
    found = read_letters(answer)
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no option letters")
    return _verdict(found == read_letters(item.answer), ", ".join(sorted(found)))


def _integer(item: Item, answer: str) -> Grade:
    found, gold = read_number(answer, item.unit), read_number(item.answer)
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no number")
    return _verdict(gold is not None and found == gold, answer)


def _float(item: Item, answer: str) -> Grade:
    found, gold = read_number(answer, item.unit), read_number(item.answer)
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no number")
    if gold is None:
        return Grade(0.0, answer, f"{UNREADABLE} reference: no number")
    tolerance = TOLERANCE.get(item.benchmark)
    if tolerance is not None:
        return _verdict(abs(found - gold) <= tolerance, answer)
    decimals = item.precision if item.precision is not None else _decimals(gold)
    return _verdict(_rounds_to(found, gold, decimals), answer)


def _list(item: Item, answer: str) -> Grade:
    found = read_numbers(answer)
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no list of numbers")
    return _verdict(found == read_numbers(item.answer), answer)


def _math(item: Item, answer: str) -> Grade:
    if not _balanced(answer):
        return Grade(0.0, answer, f"{UNREADABLE}: braces that do not match")
    return get_grader("math")(rf"\boxed{{{answer}}}", item.answer)


def _text(item: Item, answer: str) -> Grade:
    right = any(_same_text(gold, answer) for gold in item.answer.split("\n"))
    return _verdict(right, answer)


def _verdict(right: bool, found: str) -> Grade:
    return Grade(float(right), found, EQUAL if right else DIFFERENT)


def _same_text(gold: str, answer: str) -> bool:
    if _words(gold) == _words(answer):
        return True
    first, second = read_number(gold), read_number(answer)
    return first is not None and second is not None and _rounds_to(second, first, max(2, _decimals(first)))


def _words(text: str) -> str:
    bare = squeeze(re.sub(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", text)).strip("$ ").rstrip(".")
    return _ARTICLES.sub("", bare).casefold()


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _rounds_to(found: Decimal, gold: Decimal, decimals: int) -> bool:
    if not (found.is_finite() and gold.is_finite()) or max(abs(found), abs(gold)) > Decimal(10) ** 20:
        return found == gold
    step = Decimal(1).scaleb(-decimals)
    ways = (ROUND_HALF_UP, ROUND_HALF_EVEN)  # both are in use; a tie must not depend on which
    return any(found.quantize(step, rounding=w) == gold.quantize(step, rounding=w) for w in ways)


def _balanced(text: str) -> bool:
    depth = 0
    for part in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (part == "{") - (part == "}")
        if depth < 0:
            return False
    return depth == 0


def option_lines(options: Sequence[str]) -> list[str]:
    """Options as "A. text" lines."""
    return [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]


_FORMS = {
    "choice": _choice,
    "letters": _letters,
    "integer": _integer,
    "float": _float,
    "list": _list,
    "math": _math,
    "text": _text,
}
