r"""Multiple choice: the option letters in the box, and nothing outside it.

There is no search through free text and no random fallback. Both are common elsewhere and both pay for answers that
were never given: "I am unsure" holds an option I, and "A triangle, so D" an option A.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import extract_boxed, squeeze
from vold.graders.outcome import UNREADABLE, verdict
from vold.graders.registry import grader
from vold.types import Grade

if TYPE_CHECKING:
    from vold.types import Finish

LETTERS = "ABCDEFGHIJKL"
"""The option letters: MMMU-Pro has up to twelve options."""

MAX_CHOICE_CHARS = 2000
"""A longer box is not read: no option text is that long."""

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|operatorname|[lL]arge|LARGE|[hH]uge|mathtt|mathrm|mathbf|mathit|mathsf|mathbb|bf|rm|mbox|emph)\b"
)
_PREFIX = re.compile(r"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)s?\s*(?:is|are)?\s*:?\s*(?=[(\[a-l])", re.I)
_LABEL = re.compile(r"\(\s*([a-l])\s*\)|\[\s*([a-l])\s*\]|([a-l])\s*(?:[.:)](?!(?-i:[a-z]))|\u3001|$)", re.I)
_LATER_LABEL = re.compile(
    r"(?<![A-Za-z])[A-L]\s*[.:)\u3001]|(?<![A-Za-z0-9])(?:\([A-La-l]\)|\[[A-La-l]\])|(?<![A-Za-z0-9(])[a-l]\)(?!\S)"
)
_SEVERAL = re.compile(r"\s*(?:,|;|&|\band\b|\s)\s*")

# What takes a label back, or leaves it open, in the text behind it. Most words are also the text of some option, so
# only those are listed that no option is likely to hold, or a place in the text where they are no option's.
_OR = (
    "or|nor|and|but|oder|ou|und|et|eller|och|lub|albo|veya|ya da|atau|hoặc|или|либо|أو|या|vagy|nebo|tai"
    r"|(?:o|u|y|e|en|of|и)(?=\s+[(\[]?[A-La-l]\b)"
)
_JOINS = re.compile(
    rf"\W*(?:{_OR})\b|\W*(?:或|还是|または|か|또는)|\W*(?:/|\||&|\+|->|=>|\\(?:to|lor|vee|[rR]ightarrow)\b)", re.I
)
_DOUBT = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|incorrect|incorrectly|wrong|wrongly|mistake|mistaken|sorry|wait|oops|"
    r"actually|instead|rather|guess|guessing|unsure|uncertain|hmm+|scratch that|correction|corrected|nope|ignore|undo|"
    r"change(?:d)? (?:my|to|it)|i (?:think|believe|mean|meant|suppose)|on second thought|make (?:that|it)|either|"
    r"(?:could|might|may|cannot|can't|can not|should) (?:also )?(?:be|have been) (?:right|correct|true|it|the)|"
    r"isn't|aren't|wasn't|not (?:sure|certain|correct|right|true|it|this|that|really|quite|[a-l]\b)|"
    r"not the (?:answer|correct|right)|"
    r"falsch|vielleicht|faux|peut-?etre|peut-être|incorrecto|incorrecta|errado|falso|quizás?|talvez|forse|sbagliato|"
    r"неверно|неправильно|может|наверное|возможно)\b|错|不对|也许|可能|違|間違|틀|\?|\u00bf|~~|"
    r"\\(?:x?cancel|bcancel|sout|xout|not|neg|ne|neq)\b",
    re.I,
)
_COPULA = re.compile(
    r"\W*(?:(?:would|could|might|may|must|should) (?:not )?be|is|are|was|were|seems?|looks?|sounds?)\b", re.I
)
_CONFIRMED = re.compile(
    r"\W*(?:is|must be|should be)\s+(?:the\s+)?(?:correct|right|true|answer|correct answer|right answer)\W*", re.I
)
_DENIED = re.compile(r"\W*(?:not|nor)\W*|.*\bnot\W*", re.I)
_LONE = re.compile(r"(?<![A-Za-z0-9'\\])[A-L](?![A-Za-z0-9'])")
_ARTICLE = re.compile(r"A [a-z]{2,}(?<! is)(?<! was)(?<! or)(?<! and)(?<! nor)(?<! if)(?<! it)(?<! seems)(?<! not)\b")
_NUMERAL = re.compile(r"I(?:,? (?:and|or|&) (?:II|III|IV|V)|, II| only\b)")
_OTHERS = r"([A-L])(?:\s*,\s*([A-L]))?(?:,?\s+(?:and|nor|&)\s+([A-L]))?"
_ABOUT_OTHERS = (
    re.compile(rf"\W*(?:both|neither|all of|only)\s+{_OTHERS}\W*", re.I),
    re.compile(rf"\W*{_OTHERS}\s+only\W*", re.I),
)


def option_letters(text: str) -> frozenset[str] | None:
    r"""Read the option letters in the content of a box; None if it is not clear which they are.

    Reads "C", "c", "(C)", "C.", "C) foo", "C: foo", "\text{C}", "Option C", and several letters as "A, C", "A and C",
    "A C" or, in upper case and alphabetical order, "AC". Everything that takes a label back or leaves it open is None:
    "A or B", "A. or B", "A. incorrect", "(A) is wrong, B", "A.B"; so is a box that labels several options with text.

    Example:
        >>> option_letters(r"\text{(B)}")
        frozenset({'B'})
    """
    if len(text) > MAX_CHOICE_CHARS or "~~" in text:
        return None
    bare = _WRAPPER.sub(" ", fold_latex(text))
    bare = squeeze(re.sub(r"[{}$*~]|\\(?:left|right|[(){}\[\],;:! ])", " ", bare))
    bare = _PREFIX.sub("", bare, count=1) if _PREFIX.match(bare) else bare
    several = _letters_only(bare)
    if several is not None:
        return several
    label = _LABEL.match(bare)
    if label is None:
        return None
    letter = next(found.upper() for found in label.groups() if found)
    return None if _takes_back(letter, bare[label.end() :]) else frozenset(letter)


def doubted(rest: str) -> bool:
    """Whether a word behind a label takes it back or leaves it open.

    Example:
        >>> doubted("(incorrect)"), doubted("(15 cm)")
        (True, False)
    """
    return _DOUBT.search(rest) is not None


def _takes_back(letter: str, rest: str) -> bool:
    """Whether the text behind a label takes it back, leaves it open or names another option."""
    others = [found for pattern in _ABOUT_OTHERS if (found := pattern.fullmatch(rest))]
    if others and all(other.upper() < letter for other in others[0].groups() if other):
        return False  # "D. Both A and B" is the text of an option
    if _LATER_LABEL.search(rest) or _JOINS.match(rest) or doubted(rest) or _DENIED.fullmatch(rest):
        return True
    if _COPULA.match(rest) and not _CONFIRMED.fullmatch(rest):
        return True
    bare = rest.strip(" .,:;!-\u2013\u2014()[]\"'")
    if len(bare) == 1 and bare.isalpha():
        return bare.upper() != letter
    return any(_names_option(letter, rest, found) for found in _LONE.finditer(rest))


def _names_option(letter: str, rest: str, found: re.Match[str]) -> bool:
    """Whether a capital on its own is another option, not an article, a numeral or a letter of a formula."""
    if found.group() == letter or _ARTICLE.match(rest, found.start()) or _NUMERAL.match(rest, found.start()):
        return False
    before, after = rest[: found.start()].rstrip()[-1:], rest[found.end() :].lstrip()[:1]
    formula = any(map(str.isalnum, rest[: found.start()])) and before in tuple("=+*/^_(<")
    return after not in tuple("_^=+*/(<>-") and not formula


def fold_latex(text: str) -> str:
    r"""Turn LaTeX blanks and escaped separators into plain ones, so that "A,\ C" reads like "A, C"."""
    return re.sub(r"\\(?:quad|qquad|,|;|:|!| )", " ", text).replace(r"\&", "&")


def _letters_only(bare: str) -> frozenset[str] | None:
    parts = [part for part in _SEVERAL.split(bare) if part]
    names = [re.sub(r"^[(\[]\s*|\s*[)\].:]+$", "", part) for part in parts]
    if names and all(len(name) == 1 and name.upper() in LETTERS for name in names):
        return frozenset(name.upper() for name in names)
    word = bare.strip("()[]{}. ")
    if 1 < len(word) <= len(LETTERS) and all(c in LETTERS for c in word) and list(word) == sorted(set(word)):
        return frozenset(word)
    return None


@grader("choice")
class ChoiceGrader:
    r"""Marks a response right when the boxed option letters are those of the reference, as a set.

    Example:
        >>> ChoiceGrader()(r"\boxed{C. 15 cm}", "C").score
        1.0
    """

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Grade `response` against `reference`; see `vold.types.Grader`."""
        answer, note = extract_boxed(response, finish)
        if answer is None:
            return Grade(0.0, None, note)
        expected = option_letters(reference)
        if expected is None:
            return Grade(0.0, answer, f"{UNREADABLE} reference: no option letter")
        found = option_letters(answer)
        if found is None:
            return Grade(0.0, answer, f"{UNREADABLE}: no option letter in the box")
        return verdict(found == expected, ", ".join(sorted(found)))
