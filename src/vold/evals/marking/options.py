"""Marking an answer to a question with options, under the `rule` protocol.

An answer is right by the gold's letter, alone or with the text of its option, or by the text of exactly one option: its
words, its number, or an expression that is equal for the `math` grader. A letter with the text of another option is no
answer, and neither is a letter where yes and no are asked for without letters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.columns import split_options
from vold.data.benchmarks.registry import benchmarks
from vold.data.benchmarks.wording import YES_NO, YES_OR_NO, yes_or_no
from vold.evals.marking.finding import MAX_ANSWER_CHARS, readings, taken_back
from vold.evals.marking.numbers import read_quantity
from vold.evals.marking.words import EMPHASIS, TEXT_COMMAND, exact_words, plain_words
from vold.graders import get_grader
from vold.graders.choice import LETTERS, doubted, fold_latex, option_letters
from vold.graders.extract import balanced, squeeze
from vold.graders.outcome import DIFFERENT, EQUAL, UNREADABLE, verdict
from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vold.data.benchmarks.item import Item

ANOTHER_TEXT = f"{UNREADABLE}: the letter of one option with the text of another"

MAX_FORMULA_CHARS = 200
"""A longer answer is compared with the options as text only."""

_WITH_REASON = re.compile(r"[(\[]?([A-L])[)\]]?[.,:]?\s+[(\[]?(?:because|since)\b", re.IGNORECASE)
_WITH_REMARK = re.compile(r"([A-L])[.:]?\s+(?:\([^()]*\)|\[[^\[\]]*\]|[-\u2013\u2014]\s+\S.*)")
_COMPARES = re.compile(r"\b(?:instead of|rather than)\b", re.IGNORECASE)
_LABELLED = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?"
    r"[(\[]?([A-L])(?:(\s*[)\].:=\u3001]+\s*|\s+[-\u2013\u2014]\s+)|,?\s+|(?=[\d(\[]))(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(r"(?<!\w)['\u2018]([A-La-l])['\u2019](?!\w)")
_NAMED = re.compile(
    r"[\s$]*(?:both|figures?|images?|pictures?|shapes?|diagrams?|graphs?|boxe?s?|cubes?|patterns?|letters?)\s+(?=[(\[$]{0,2}[A-L]\b)",
    re.I,
)
_TRAILING = re.compile(
    r"(\S.*?)(?:\s*\(|\s*[,;:-]\s*|\s+)(?:(?:that|which)\s+(?:is|corresponds\s+to|matches)\s+|i\.e\.,?\s*)?"
    r"(?:(?:option|choice|answer)\s*)?\(?([A-L])\)*\.?",
    re.IGNORECASE | re.DOTALL,
)
_LONE_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-L](?![A-Za-z0-9])")
_FORMULA = re.compile(r"[0-9\\^_=+√π°]|^\s*\$?[a-z]\$?\s*$")
_LATEX = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[()\[\]]")


def read_letters(answer: str) -> frozenset[str] | None:
    r"""The option letters an answer names, or None.

    Reads what `vold.graders.choice.option_letters` reads, and one letter with a reason or a remark behind it: "C
    (because A fails)", "C since it is larger", "C (15 cm)", "C - 15 cm". A remark that names another letter is a hedge,
    and "(wrong)" takes the letter back.

    Example:
        >>> sorted(read_letters("C (because A and B fail)")), read_letters("C (or D)")
        (['C'], None)
    """
    answer = _QUOTED.sub(r"\1", EMPHASIS.sub("", re.sub(r"[\"\u201c\u201d]", "", answer)))
    noun = _NAMED.match(_plain(answer))
    answer = _plain(answer)[noun.end() :] if noun else answer
    found = option_letters(answer)
    if found is not None or len(answer) > MAX_ANSWER_CHARS:
        return found
    bare = _plain(answer)
    reason = _WITH_REASON.match(bare)
    if reason is not None:
        return frozenset(reason[1].upper())
    remark = _WITH_REMARK.fullmatch(bare)
    if remark is None or len(_LONE_LETTER.findall(bare)) > 1 or doubted(_COMPARES.sub("", bare[remark.end(1) :])):
        return None
    return frozenset(remark[1])


def is_yes_no(item: Item) -> bool:
    """Whether yes or no is asked for in words: "Yes" and "No" can be lettered options of another benchmark as well."""
    benchmark = benchmarks().get(item.benchmark)
    return item.options == YES_OR_NO and benchmark is not None and benchmark.judging is YES_NO


def grade_choice(item: Item, answer: str) -> Grade:
    """One letter of the item's own, or exactly one option by its text; a letter goes first.

    Where the options are in the picture any letter from A to L will do. An option with the very text of the gold
    option is right where the answer is that text, and by its letter where the gold is a text.
    """
    if is_yes_no(item):
        return _yes_no(item, answer) or Grade(0.0, answer, f"{UNREADABLE}: neither yes nor no")
    options = _options(item)
    named = read_letters(answer)
    letter, rest = _label(named, answer)
    if rest and not _is_own(options, letter, rest):
        if any(_same_text(option, text) for option in options for text in _texts(rest)):
            return Grade(0.0, answer, ANOTHER_TEXT)
        if taken_back(f" {rest}"):
            return Grade(0.0, answer, f"{UNREADABLE}: a letter that is taken back")
    if named is None or len(named) > 1:
        named = _with_own_text(options, answer) or named
    alphabet = LETTERS[: len(item.options)] if item.options else LETTERS
    if named is not None and len(named) == 1 and named <= set(alphabet):
        found = next(iter(named))
        return verdict(found == item.answer or _twins(item, found), found)
    matching = matching_options(options, answer)
    if matching:
        found = item.answer if item.answer in matching else matching[0]
        return verdict(found == item.answer, found)
    if named is not None and len(named) == 1:
        return Grade(0.0, next(iter(named)), f"{DIFFERENT}: there is no such option")
    unread = Grade(0.0, answer, f"{UNREADABLE}: neither one option letter nor one option's text")
    return _yes_no(item, answer) or unread


def _yes_no(item: Item, answer: str) -> Grade | None:
    """Mark the word of a question whose options are yes and no, in this order or the other."""
    options = [option.capitalize() for option in item.options]
    word = yes_or_no(answer) if sorted(options) == sorted(YES_OR_NO) else None
    if word is None or taken_back(answer[1:]):
        return None
    letter = LETTERS[options.index(word)]
    return verdict(letter == item.answer, letter)


def is_bare_choice(item: Item, answer: str) -> bool:
    """Whether an answer is a letter (or letters) alone, or an option's text with its letter or without."""
    if is_yes_no(item):
        return plain_words(answer) in ("yes", "no")
    options = _options(item)
    alone = re.sub(r"(?i)\b(?:option|choice|answer)s?\b|[^A-Za-z]", "", _plain(answer))
    letter = len(alone) == 1 or (item.form == "letters" and 0 < len(alone) == len(option_letters(answer) or ()))
    return letter or bool(_with_own_text(options, answer) or matching_options(options, answer))


def _options(item: Item) -> tuple[str, ...]:
    """The options' texts where they are known: the item's, or in its question, or in the one that a judge is shown."""
    return item.options or split_options(item.question)[1] or split_options(item.for_judge or "")[1]


def matching_options(options: Sequence[str], answer: str) -> str:
    """Letters of the options that are this text: exactly, else as a number or, if none, in any case, else as an
    expression; "" if there is none, or if those are different texts."""
    keys: tuple[Callable[[str], object], ...] = (
        exact_words,
        plain_words if read_quantity(answer) is None else read_quantity,
    )
    for key in keys:
        wanted = key(answer)
        found = [i for i, option in enumerate(options) if wanted and key(option) == wanted]
        if found:
            return _one_text(options, found)
    return _one_text(options, [i for i, option in enumerate(options) if _equal_formulas(option, answer)])


def _one_text(options: Sequence[str], found: Sequence[int]) -> str:
    same = len({exact_words(options[i]) for i in found}) == 1
    return "".join(LETTERS[i] for i in found if i < len(LETTERS)) if same else ""


def _equal_formulas(option: str, answer: str) -> bool:
    if not (_FORMULA.search(option) and _FORMULA.search(answer)) or max(len(option), len(answer)) > MAX_FORMULA_CHARS:
        return False
    if not (balanced(answer) and balanced(option)):
        return False
    return get_grader("math")(rf"\boxed{{{answer}}}", option.strip().strip("$")).note == EQUAL


def _same_text(option: str, text: str) -> bool:
    wanted = exact_words(option)
    if wanted and (exact_words(text) == wanted or (plain_words(text) == plain_words(option) != "")):
        return True
    number = read_quantity(text)
    return (number is not None and read_quantity(option) == number) or _equal_formulas(option, text)


def _plain(answer: str) -> str:
    answer = EMPHASIS.sub("", answer)
    return squeeze(_LATEX.sub(" ", TEXT_COMMAND.sub(r"\1", fold_latex(answer))))


def _texts(rest: str) -> Iterable[str]:
    """What stands behind a label, as it may be an option's text: whole, without brackets, its first sentence."""
    for text in readings(rest):
        yield text
        if text[:1] + text[-1:] in ("()", "[]", '""'):
            yield text[1:-1]


def _label(named: frozenset[str] | None, answer: str) -> tuple[str, str]:
    """The letter before a text, and the text; "" where no letter stands there as a label."""
    found = _LABELLED.fullmatch(_plain(answer))
    if found is None or (not found[2] and (named is None or len(named) > 1)):
        return "", ""
    letter = found[1].upper()
    return (letter, found[3]) if named is None or len(named) > 1 or letter in named else ("", "")


def _is_own(options: Sequence[str], letter: str, rest: str) -> bool:
    """Whether the text behind a label is that of its option."""
    own = LETTERS.index(letter)
    return own < len(options) and any(_same_text(options[own], text) for text in _texts(rest))


def _with_own_text(options: Sequence[str], answer: str) -> frozenset[str] | None:
    """The letter before or behind the very text of its own option, whatever that text is: "C. Neither", "D. H"."""
    found = _LABELLED.fullmatch(_plain(answer))
    trailing = _TRAILING.fullmatch(_plain(answer))
    if trailing and trailing[2] in LETTERS[: len(options)] and _is_own(options, trailing[2], trailing[1]):
        return frozenset(trailing[2])
    if found is None or found[1].upper() not in LETTERS[: len(options)]:
        return None
    return frozenset(found[1].upper()) if _is_own(options, found[1].upper(), found[3]) else None


def _twins(item: Item, letter: str) -> bool:
    """Whether the gold is a text, and this option reads like it."""
    benchmark = benchmarks().get(item.benchmark)
    if benchmark is None or not benchmark.gold_is_a_text:
        return False
    found, gold = (LETTERS.index(x) for x in (letter, item.answer))
    return max(found, gold) < len(item.options) and squeeze(item.options[found]) == squeeze(item.options[gold])
