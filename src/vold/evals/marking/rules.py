r"""The `rule` protocol: mark an answer without a judge. What cannot be read scores 0 and is counted, never guessed.

Where the answer is, in this order, in the text after the last `</think>`:

1. The content of the last closed `\boxed{}` or `\fbox{}`, whatever is written after it.
2. Without a box, what follows the last marker of the text, to the end of its line; where nothing follows on that line,
   the next line that holds something. A marker is "answer" with a colon ("Answer: B", "**Final answer:** B",
   "<Answer>: B"), or "answer is" (or "are", "would be") at the start of a line or after "the", "my", "our", "final" or
   "correct".

Nothing else is searched: "I am unsure" holds an option I, and "a triangle, so D" an option A. A response that ran out
of tokens is wrong whatever it holds, and so is one whose thinking block never closed.

What is read there must be the answer and nothing else. The rule for each form of answer is at its function below.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.evals.marking.numbers import decimals, one_unit, read_list, read_quantity, rounds_to
from vold.graders import get_grader
from vold.graders.choice import LETTERS, fold_latex, option_letters
from vold.graders.extract import Extraction, after_thinking, balanced, extract_boxed, fold, squeeze
from vold.graders.outcome import DIFFERENT, NO_BOX, TRUNCATED, UNREADABLE, verdict
from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.data.benchmarks.item import Form, Item
    from vold.evals.marking.numbers import Quantity
    from vold.types import Finish

SCORING_VERSION = "3"
"""Part of every protocol hash. Change it with any change that can move a score."""

LEAST_DECIMALS = 2
"""Decimals that count where neither the item nor its gold says more: MMMU's rule for open questions."""

MAX_ANSWER_CHARS = 2000

# Blanks are counted, so that a search through a long text stays linear.
_GAP, _SPACE = r"[ \t]{0,4}", r"[ \t]{1,4}"
_COLON = rf"answers?{_GAP}(?:>|\*\*|__)?{_GAP}[:\uff1a]"
_BEFORE_IS = rf"\b(?:the|my|our|final|correct){_SPACE}|^[ \t*_>]{{0,8}}"
_IS = rf"(?:{_BEFORE_IS})answers?{_SPACE}(?:is|are|would{_SPACE}be)\b{_GAP}[:\uff1a]?"
_MARKER = re.compile(rf"\b{_COLON}|{_IS}", re.IGNORECASE | re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w)])\*\*(?=\S)([^*\n]{1,500})(?<=\S)\*\*(?![\w(])")
_MARKUP = " \t\r*_`$"
_WITH_REASON = re.compile(r"[(\[]?([A-L])[)\]]?[.,:]?\s+[(\[]?(?:because|since)\b", re.IGNORECASE)
_WITH_REMARK = re.compile(r"([A-L])[.:]?\s+(?:\([^()]*\)|\[[^\[\]]*\]|[-\u2013\u2014]\s+\S.*)")
_LABELLED = re.compile(r"[(\[]?([A-L])[)\].:]\s*(.+)")
_LONE_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-L](?![A-Za-z0-9])")
_ARTICLE = re.compile(r"(?:the|a|an)\s+(?=\S)", re.IGNORECASE)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LATEX_BLANK = re.compile(r"\\[,;:! ()\[\]]|\\(?:left|right|displaystyle)(?![a-zA-Z])|~")
_PUNCTUATION = re.compile(
    r"[,;:!?\"()\[\]{}_*`\u2018\u2019\u201c\u201d$]|\.(?!\d)|(?<=[^\W\d])[-\u2010](?=[^\W\d])|(?<=\w)'(?=\s|$)"
)
_PERCENT_ASKED = re.compile(r"\bpercent(?:age)?s?\b|\bper cent\b", re.IGNORECASE)
_PERCENT_SIGN = re.compile(r"\s*\\?%\s*(?=[$.\s]*$)")


def find_answer(response: str, finish: Finish = "stop") -> Extraction:
    r"""Return the text that is marked, or None and why there is none; the rule is at the head of this module.

    Example:
        >>> find_answer("Two and two.\n**Answer:** (B)").answer
        '(B)'
        >>> find_answer("A triangle, so D").note
        'no \\boxed{} and no answer line'
    """
    boxed = extract_boxed(response, finish)
    if boxed.answer is not None or boxed.note != NO_BOX:
        return boxed
    text = after_thinking(response) or ""
    end = -1
    for marker in _MARKER.finditer(text):
        end = marker.end()
    if end >= 0:
        for line in text[end:].split("\n", 8)[:8]:
            answer = _EMPHASIS.sub(r"\1", line[: MAX_ANSWER_CHARS + 1]).strip(_MARKUP)
            if answer and answer not in (r"\[", r"\("):
                return Extraction(_without_delimiters(answer), "answer line")
    return Extraction(None, f"{NO_BOX} and no answer line")


def score(item: Item, response: str, *, finish: Finish = "stop") -> Grade:
    r"""Mark a response by rule: 1.0 or 0.0, with a note that `vold.graders.outcome` sorts. Never raises on model text.

    Example:
        >>> from vold.data.benchmarks.item import Item
        >>> two = Item("mathvista", "1", "How many?", (), (), "2", "integer", cluster="1")
        >>> score(two, r"There are \boxed{2}.").score
        1.0
    """
    answer, note = find_answer(response, finish)
    if finish == "length":
        return Grade(0.0, None, TRUNCATED)
    if answer is None:
        return Grade(0.0, None, note)
    return grade_answer(item, answer)


def grade_answer(item: Item, answer: str) -> Grade:
    """Mark an answer that has been extracted already, by a rule or by a judge."""
    if len(answer) > MAX_ANSWER_CHARS:
        return Grade(0.0, answer[:MAX_ANSWER_CHARS], f"{UNREADABLE}: longer than {MAX_ANSWER_CHARS} characters")
    if not squeeze(answer):
        return Grade(0.0, "", f"{UNREADABLE}: empty")
    if _PERCENT_ASKED.search(item.question) and "%" not in item.answer and "%" not in (item.unit or ""):
        answer = _PERCENT_SIGN.sub("", answer)
    return _FORMS[item.form](item, answer)


def read_letters(answer: str) -> frozenset[str] | None:
    r"""The option letters an answer names, or None.

    Reads what `vold.graders.choice.option_letters` reads, and one letter with a reason or a remark behind it: "C
    (because A fails)", "C since it is larger", "C (15 cm)", "C - 15 cm". A remark that names another letter is a hedge.

    Example:
        >>> sorted(read_letters("C (because A and B fail)")), read_letters("C (or D)")
        (['C'], None)
    """
    answer = re.sub(r"[\"\u201c\u201d]", "", answer)
    found = option_letters(answer)
    if found is not None or len(answer) > MAX_ANSWER_CHARS:
        return found
    bare = squeeze(_TEXT_COMMAND.sub(r"\1", fold_latex(answer)))
    reason = _WITH_REASON.match(bare)
    if reason is not None:
        return frozenset(reason[1].upper())
    remark = _WITH_REMARK.fullmatch(bare)
    alone = remark is not None and len(_LONE_LETTER.findall(bare)) == 1
    return frozenset(remark[1]) if remark is not None and alone else None


def _choice(item: Item, answer: str) -> Grade:
    """One letter of the item's own, or the whole text (or number) of exactly one option; a letter goes first.

    Where the options are in the picture any letter from A to L will do. An option with the very text of the gold
    option is right where the answer is that text, and by its letter where the gold is a text.
    """
    alphabet = LETTERS[: len(item.options)] if item.options else LETTERS
    named = read_letters(answer) or _with_own_text(item.options, answer)
    if named is not None and len(named) == 1 and named <= set(alphabet):
        found = next(iter(named))
        benchmark = benchmarks().get(item.benchmark)
        by_text = benchmark is not None and benchmark.gold_is_a_text
        right = found == item.answer or (by_text and _twins(item, found))
        return verdict(right, found)
    matching = _matching_options(item.options, answer)
    if matching:
        found = item.answer if item.answer in matching else matching[0]
        return verdict(found == item.answer, found)
    if named is not None and len(named) == 1:
        return Grade(0.0, next(iter(named)), f"{DIFFERENT}: there is no such option")
    return Grade(0.0, answer, f"{UNREADABLE}: neither one option letter nor one option's text")


def _with_own_text(options: Sequence[str], answer: str) -> frozenset[str] | None:
    """The letter before the very text of its own option, whatever that text is: "C. Neither", "D. H"."""
    found = _LABELLED.match(squeeze(_TEXT_COMMAND.sub(r"\1", fold_latex(answer))))
    if found is None or (found[1] not in LETTERS[: len(options)]):
        return None
    own = _exact_words(options[LETTERS.index(found[1])])
    return frozenset(found[1]) if own and _exact_words(found[2]) == own else None


def _twins(item: Item, letter: str) -> bool:
    found, gold = (LETTERS.index(x) for x in (letter, item.answer))
    return max(found, gold) < len(item.options) and squeeze(item.options[found]) == squeeze(item.options[gold])


def _matching_options(options: Sequence[str], answer: str) -> str:
    """Letters of the options that are this text: exactly, else as a number or, if none, in any case; "" if unclear."""
    keys: tuple[Callable[[str], object], ...] = (
        _exact_words,
        _words if read_quantity(answer) is None else read_quantity,
    )
    for key in keys:
        wanted = key(answer)
        found = [i for i, option in enumerate(options) if wanted and key(option) == wanted]
        if found and len({_exact_words(options[i]) for i in found}) == 1:
            return "".join(LETTERS[i] for i in found if i < len(LETTERS))
        if found:
            return ""
    return ""


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
        return Grade(0.0, answer, f"{UNREADABLE}: no number")
    unit = gold.unit or (one_unit(item.unit) if item.unit else "")
    if not _unit_fits(found, unit):
        return Grade(0.0, answer, f"{DIFFERENT}: {found.unit} instead of {unit or 'a plain number'}")
    return verdict(equal(found.value, gold.value), answer)


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
    if not balanced(answer):
        return Grade(0.0, answer, f"{UNREADABLE}: braces that do not match")
    return get_grader("math")(rf"\boxed{{{answer}}}", item.answer)


def _text(item: Item, answer: str) -> Grade:
    """The same words without case, punctuation and a leading article, or the same number; any line of the gold will do.

    Numbers agree after rounding to two decimals, or to more where the gold has more; a fraction only exactly.
    """
    for gold in alternatives(item):
        if _exact_words(gold) == _exact_words(answer) or _same_number(gold, answer) or _same_words(gold, answer):
            return verdict(True, answer)
    return verdict(False, answer)


def _same_words(gold: str, answer: str) -> bool:
    numbers = read_quantity(gold), read_quantity(answer)
    return None in numbers and bool(_words(gold)) and _words(gold) == _words(answer)


def alternatives(item: Item) -> list[str]:
    """The gold answers of an item: the lines of a text (any of them is right), else the one it has."""
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


def _exact_words(text: str) -> str:
    """The text without markup and final stop; case and everything else kept. LaTeX loses its blanks."""
    bare = _LATEX_BLANK.sub(" ", _TEXT_COMMAND.sub(r"\1", squeeze(text)).strip("$ "))
    bare = re.sub(r"\\[dt]frac\b", r"\\frac", bare)
    return "".join(bare.split()) if "\\" in bare else squeeze(bare).rstrip(".")


def _words(text: str) -> str:
    bare = _PUNCTUATION.sub(" ", _exact_words(fold(text)))
    bare = " ".join(bare.split())
    return _ARTICLE.sub("", bare, count=1).casefold() if _ARTICLE.match(bare) else bare.casefold()


def _without_delimiters(text: str) -> str:
    r"""Take `\( \)` or `\[ \]` off where they are around the whole text."""
    inner = re.fullmatch(r"\\[(\[](.*)\\[)\]]\.?", text)
    return inner[1].strip() if inner else text


_FORMS: dict[Form, Callable[[Item, str], Grade]] = {
    "choice": _choice,
    "letters": _letters,
    "integer": _integer,
    "float": _float,
    "list": _list,
    "math": _math,
    "text": _text,
}
