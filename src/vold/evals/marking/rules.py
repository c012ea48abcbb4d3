r"""The `rule` protocol: mark an answer without a judge. What cannot be read scores 0 and is counted, never guessed.

What counts, in the text after the last `</think>`:

1. The last box, if it can be read in the item's form; else the last statement that can (`finding.statements`: answer
   tags, answer lines, `####`, JSON). After a box that cannot be read, only what is stated later.
2. Where nothing is stated: the whole text, if it is one line, and else a first or last line that is an answer and
   nothing else, if no other line is another answer.

An answer is none if a later statement gets another mark, or if what follows takes it back ("Wait, that is wrong"). A
response that ran out of tokens is wrong whatever it holds, and so is one whose thinking block never closed.

What is read there must be the answer and nothing else. The rule for each form of answer is at its function below.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.data.benchmarks.wording import YES_OR_NO
from vold.evals.marking.finding import MAX_ANSWER_CHARS, readings, statements, taken_back
from vold.evals.marking.numbers import decimals, one_unit, read_list, read_quantity, rounds_to
from vold.evals.marking.options import ANOTHER_TEXT, grade_choice, is_bare_choice, is_yes_no, read_letters
from vold.evals.marking.words import EMPHASIS, exact_words, plain_words
from vold.graders import get_grader
from vold.graders.extract import after_thinking, balanced, fold, squeeze
from vold.graders.outcome import DIFFERENT, NO_BOX, TRUNCATED, UNCLOSED, UNREADABLE, verdict
from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.data.benchmarks.item import Form, Item
    from vold.evals.marking.finding import Statement
    from vold.evals.marking.numbers import Quantity
    from vold.types import Finish

SCORING_VERSION = "5"
"""Part of every protocol hash. Change it with any change that can move a score."""

LEAST_DECIMALS = 2
"""Decimals that count where neither the item nor its gold says more: MMMU's rule for open questions."""

MAX_LINE_CHARS = 300
"""A longer line without a statement is not an answer."""

MAX_LINES = 40
"""In a longer text without a statement only the first and the last line are looked at."""

_PERCENT_ASKED = re.compile(r"\bpercent(?:age)?s?\b|\bper cent\b", re.IGNORECASE)
_PERCENT_SIGN = re.compile(r"\s*(?:\\?%|per ?cent)\s*(?=[$.\s]*$)", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"(?:so|therefore|thus|hence|ergo|\u2234)\b[,:]?\s*(?:it\s+(?:is|must\s+be|has\s+to\s+be)\s+)?(?=\S)", re.IGNORECASE
)
_OR_THE_SAME = re.compile(
    r"[\s,;.$)\]\\*(]{0,12}(?:or|i\.e\.)(?: equivalently| simply)?,?\s+([^\n]{1,80}?)[.)]?\s*(?:\n|$)"
)
_BULLET = re.compile(r"(?:[-\u2022\u2192\u2713\u2714\u2705>*#]\s*)+(?=[(\[]?[A-La-l]\b)")


def find_answer(text: str) -> Statement | None:
    r"""The answer that a text states: a box before others; None if it states none, takes it back or
    states another one later.

    Example:
        >>> find_answer("Two and two.\n**Answer:** (B)").readings, find_answer("A triangle, so D")
        (('(B)',), None)
    """
    text = fold(text)
    found = statements(text)
    if not found:
        return None
    last = next((s for s in reversed(found) if s.place == "box"), found[-1])
    later = {squeeze(s.readings[0]) for s in found if s.start > last.start}
    if taken_back(text[found[-1].end :]) or later - {squeeze(last.readings[0])}:
        return None
    return last


def score(item: Item, response: str, *, finish: Finish = "stop") -> Grade:
    r"""Mark a response by rule: 1.0 or 0.0, with a note that `vold.graders.outcome` sorts. Never raises on model text.

    Example:
        >>> from vold.data.benchmarks.item import Item
        >>> two = Item("mathvista", "1", "How many?", (), (), "2", "integer", cluster="1")
        >>> score(two, r"There are \boxed{2}.").score
        1.0
    """
    if finish == "length":
        return Grade(0.0, None, TRUNCATED)
    text = after_thinking(response)
    if text is None:
        return Grade(0.0, None, UNCLOSED)
    return read(item, text) or Grade(0.0, None, f"{NO_BOX} and no answer line")


def read(item: Item, text: str) -> Grade | None:
    """Mark a text without its thinking; None where it holds no answer of the forms that are looked for."""
    text = fold(text)
    return _grade_stated(item, text) or _grade_bare(item, text)


def _grade_stated(item: Item, text: str) -> Grade | None:
    """Mark what a text states as its answer; None if it states nothing."""
    found = [(s, _best(item, s.readings)) for s in statements(text)]
    box = next((s for s, _ in reversed(found) if s.place == "box"), None)
    read = [(s, g) for s, g in found if not g.note.startswith(UNREADABLE)]
    if box is not None and all(s is not box for s, _ in read):
        read = [(s, g) for s, g in read if s.end >= box.end]
    if not read:
        return next((g for s, g in reversed(found) if box in (None, s)), None)
    chosen, grade = next(((s, g) for s, g in read if s is box), read[-1])
    if any(g.score != grade.score for s, g in read if s.start > chosen.start):
        return Grade(0.0, grade.extracted, f"{UNREADABLE}: two answers that disagree")
    rest = text[max(s.end for s, _ in read) :]
    same = _OR_THE_SAME.match(rest)
    if same and grade.score == 1.0 and _best(item, readings(same[1])).score == 1.0:
        rest = rest[same.end() :]
    if taken_back(rest):
        return Grade(0.0, grade.extracted, f"{UNREADABLE}: an answer that is taken back")
    return grade


def _best(item: Item, texts: Sequence[str]) -> Grade:
    """The first reading that is right, else the first that can be read; none where a letter has another's text."""
    grades = [grade_answer(item, text) for text in texts]
    read = [g for g in grades if not g.note.startswith(UNREADABLE)]
    if grades[0].note == ANOTHER_TEXT:
        return grades[0]
    return next((g for g in read if g.score == 1.0), (read or grades)[0])


def _grade_bare(item: Item, text: str) -> Grade | None:
    """Mark a text that is an answer, or whose last or first line is; None if neither is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 1:
        return _grade_line(item, lines[0]) if lines else None
    ends = lines if len(lines) < MAX_LINES else [lines[0], lines[-1]]
    first, *middle, last = [_grade_line(item, line, among=True) for line in ends]
    found = last or (None if taken_back("\n".join(lines[1:])) else first)
    if found is None or any(g is not None and g.score != found.score for g in (first, *middle, last)):
        return None
    return found


def _grade_line(item: Item, line: str, *, among: bool = False) -> Grade | None:
    """Mark a line that is an answer and nothing else, if it is one. `among` others it must be one without a doubt: a
    letter alone or with its own option's text, a number, or the gold."""
    if len(line) > MAX_LINE_CHARS or (among and line.startswith("=")):
        return None
    last = re.split(r"(?<=[.!?])\s+", line)[-1]
    concludes = _CONCLUSION.match(last)
    bullet = _BULLET.match(line) if item.form in ("choice", "letters") else None
    bare = last[concludes.end() :] if concludes else line[bullet.end() if bullet else 0 :]
    grade = _best(item, readings(bare))
    if grade.note.startswith(UNREADABLE):
        return grade if grade.note == ANOTHER_TEXT and not among else None
    sure = grade.score == 1.0 if item.form in ("text", "math") else True
    if among and item.form == "math":
        sure = read_quantity(bare) is not None or exact_words(bare) == exact_words(item.answer)
    if among and item.form in ("choice", "letters") and concludes is None:
        sure = is_bare_choice(item, bare)
    return grade if sure else None


def grade_answer(item: Item, answer: str) -> Grade:
    """Mark an answer that has been extracted already, by a rule or by a judge."""
    if len(answer) > MAX_ANSWER_CHARS:
        return Grade(0.0, answer[:MAX_ANSWER_CHARS], f"{UNREADABLE}: longer than {MAX_ANSWER_CHARS} characters")
    if not squeeze(answer):
        return Grade(0.0, "", f"{UNREADABLE}: empty")
    if squeeze(answer).endswith("?") and not any(text.endswith("?") for text in (item.answer, *item.options)):
        return Grade(0.0, answer, f"{UNREADABLE}: a question")
    if _PERCENT_ASKED.search(item.question) and "%" not in item.answer and "%" not in (item.unit or ""):
        answer = _PERCENT_SIGN.sub("", answer)
    return _FORMS[item.form](item, answer)


def _letters(item: Item, answer: str) -> Grade:
    """The same letters, in any order. A gold that is no letter (LogicVista has a number) is compared as text."""
    gold = read_letters(item.answer)
    if gold is None:
        return _text(item, answer)
    found = read_letters(answer)
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no option letters")
    return verdict(found == gold, ", ".join(sorted(found)))


def _number(item: Item, answer: str, equal: Callable[[Fraction, Fraction], bool]) -> Grade:
    """A number that is `equal` to the gold; its unit may be left out, but not be another than the item's or the gold's.

    Where neither says a unit, any is taken, as is one word for what was counted; a scale ("thousand") never is. A
    percent sign must be in the item's unit or the gold, or the question must say "percent": 10% is neither 10 nor 0.1
    of its own.
    """
    gold, found = read_quantity(item.answer), read_quantity(answer)
    if gold is None:
        return Grade(0.0, answer, f"{UNREADABLE} reference: no number")
    if found is None:
        return _worked_out(item, answer) or Grade(0.0, answer, f"{UNREADABLE}: no number")
    unit = gold.unit or (one_unit(item.unit) if item.unit else "")
    if not _unit_fits(found, unit):
        return Grade(0.0, answer, f"{DIFFERENT}: {found.unit} instead of {unit or 'a plain number'}")
    return verdict(equal(found.value, gold.value), answer)


def _worked_out(item: Item, answer: str) -> Grade | None:
    """A calculation with its result, "9 * 2 = 18", that is right."""
    grade = _math(item, answer) if "=" in answer else None
    return grade if grade is not None and grade.score == 1.0 else None


def _unit_fits(found: Quantity, unit: str) -> bool:
    if not found.unit or found.unit == unit:
        return True
    return not unit and found.sure and found.unit != "%"


def _integer(item: Item, answer: str) -> Grade:
    """The same number: 14 is 14.0, 014 and 1.4e1, but not 14.5."""
    return _number(item, answer, lambda found, gold: found == gold)


def _float(item: Item, answer: str) -> Grade:
    """The same number after rounding both to the item's decimals, else to the gold's (two or more).

    A tie may go up or to even. A benchmark may have an absolute tolerance instead.
    """
    benchmark = benchmarks().get(item.benchmark)
    tolerance = benchmark.tolerance if benchmark is not None else None
    if tolerance is not None:
        return _number(item, answer, lambda found, gold: abs(found - gold) <= tolerance)
    places = item.precision
    if places is None:
        places = max(LEAST_DECIMALS, decimals(item.answer) or 0)
    return _number(item, answer, lambda found, gold: rounds_to(found, gold, places))


def _list(item: Item, answer: str) -> Grade:
    """The same numbers in the same order, with or without brackets."""
    found, gold = read_list(answer), read_list(item.answer)
    if gold is None:
        return Grade(0.0, answer, f"{UNREADABLE} reference: no list of numbers")
    if found is None:
        return Grade(0.0, answer, f"{UNREADABLE}: no list of numbers")
    return verdict(found == gold, answer)


def _math(item: Item, answer: str) -> Grade:
    """Equal for the `math` grader."""
    answer = EMPHASIS.sub("", answer)
    if not balanced(answer):
        return Grade(0.0, answer, f"{UNREADABLE}: braces that do not match")
    return get_grader("math")(rf"\boxed{{{answer}}}", item.answer)


def _text(item: Item, answer: str) -> Grade:
    """The same words without case, punctuation and a leading article, or the same number; any line of the gold will do.

    Numbers agree after rounding to two decimals, or to more where the gold has more; a fraction only exactly.
    """
    for gold in alternatives(item):
        if exact_words(gold) == exact_words(answer) or _same_number(gold, answer) or _same_words(gold, answer):
            return verdict(True, answer)
    return verdict(False, answer)


def _same_words(gold: str, answer: str) -> bool:
    numbers = read_quantity(gold), read_quantity(answer)
    return None in numbers and bool(plain_words(gold)) and plain_words(gold) == plain_words(answer)


def alternatives(item: Item) -> list[str]:
    """The gold answers of an item: the lines of a text (any of them is right), "Yes" or "No" where that is asked for,
    else the one it has."""
    if is_yes_no(item):
        return [dict(zip("AB", YES_OR_NO, strict=True)).get(item.answer, item.answer)]
    lines = item.answer.split("\n") if item.form in ("text", "letters") else []
    return [line for line in lines if line.strip()] or [item.answer]


def _same_number(gold: str, answer: str) -> bool:
    wanted, found = read_quantity(gold), read_quantity(answer)
    if wanted is None or found is None or not _unit_fits(found, wanted.unit):
        return False
    places = decimals(gold)
    if places is None:
        return found.value == wanted.value
    return rounds_to(found.value, wanted.value, max(LEAST_DECIMALS, places))


_FORMS: dict[Form, Callable[[Item, str], Grade]] = {
    "choice": grade_choice,
    "letters": _letters,
    "integer": _integer,
    "float": _float,
    "list": _list,
    "math": _math,
    "text": _text,
}
