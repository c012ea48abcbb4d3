r"""Find the answer in a response: the last closed `\boxed{}` outside the thinking block.

Everything here is linear in the length of the text, whatever the text is.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from vold.graders.outcome import NO_BOX, TRUNCATED, UNCLOSED

if TYPE_CHECKING:
    from vold.types import Finish

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

# A box opener, an escaped character (so that \{ and \\ are not counted) or a brace.
_TOKEN = re.compile(r"\\(?:boxed|fbox)[ \t\r\n]*\{|\\.|[{}]", re.DOTALL)

_MINUS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe58\ufe63\uff0d"), "-")
_FOLDED_FORMS = ("<wide>", "<narrow>", "<noBreak>", "<font>", "<compat>")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None)


class Extraction(NamedTuple):
    """An answer found in a response, or None and a note why there is none."""

    answer: str | None
    note: str


def after_thinking(response: str) -> str | None:
    """Return the text after the last `</think>`, or None if a thinking block is still open at the end.

    A response without any tag is returned whole: some chat templates put the opening tag in the prompt.
    """
    close = response.rfind(THINK_CLOSE)
    if response.find(THINK_OPEN, close + 1) >= 0:
        return None
    return response if close < 0 else response[close + len(THINK_CLOSE) :]


def split_thinking(response: str) -> tuple[str, bool, str]:
    """Return the thinking block of a response, whether it was closed, and what comes after it.

    The block ends at the last closing tag. Some chat templates open it in the prompt.

    Example:
        >>> split_thinking("<think>1 + 1</think>2")
        ('1 + 1', True, '2')
    """
    rest = after_thinking(response)
    if rest == response:
        return "", True, response
    block = response if rest is None else response[: len(response) - len(rest) - len(THINK_CLOSE)]
    return block.strip().removeprefix(THINK_OPEN).strip(), rest is not None, (rest or "").strip()


class Box(NamedTuple):
    r"""A closed `\boxed{}` or `\fbox{}`: where it stands in its text, and what it holds (characters)."""

    start: int
    inner_start: int
    inner_end: int
    end: int


def boxes(text: str) -> list[Box]:
    r"""Every closed box that stands in no other closed box, in order.

    Braces must balance; escaped braces do not count. A box that is never closed is passed over, and a box that holds
    nothing but another box is unwrapped.

    Example:
        >>> boxes(r"\boxed{3} or \boxed{\fbox{4}}")
        [Box(start=0, inner_start=7, inner_end=8, end=9), Box(start=13, inner_start=26, inner_end=27, end=29)]
    """
    open_at: list[tuple[int, int] | None] = []
    closed: list[Box] = []
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word == "{":
            open_at.append(None)
        elif word == "}":
            begun = open_at.pop() if open_at else None
            if begun is not None:
                closed.append(_closed(text, begun, token, closed))
        elif word[-1] == "{" and len(word) > 2:
            open_at.append(token.span())
    return closed


def _closed(text: str, begun: tuple[int, int], end: re.Match[str], closed: list[Box]) -> Box:
    """The box that closes here; those inside it leave the list."""
    inside: list[Box] = []
    while closed and closed[-1].start > begun[0]:
        inside.append(closed.pop())
    if len(inside) == 1 and not (text[begun[1] : inside[0].start] + text[inside[0].end : end.start()]).strip():
        return Box(begun[0], inside[0].inner_start, inside[0].inner_end, end.end())
    return Box(begun[0], begun[1], end.start(), end.end())


def last_box(text: str) -> str | None:
    r"""Return what is inside the last of `boxes`, or None.

    Example:
        >>> last_box(r"\boxed{3}, no: \boxed{\frac{1}{2}} or \boxed{5")
        '\\frac{1}{2}'
    """
    found = boxes(text)
    return text[found[-1].inner_start : found[-1].inner_end] if found else None


def extract_boxed(response: str, finish: Finish = "stop") -> Extraction:
    r"""Extract the final answer of a response.

    Nothing is extracted from a response that ran out of tokens (`finish` "length") or whose thinking block is still
    open, even if a box was closed by then: the model had not finished. A box inside the thinking block never counts.

    Example:
        >>> extract_boxed(r"<think>\boxed{4}?</think> It is \boxed{5}.")
        Extraction(answer='5', note='')
        >>> extract_boxed("It is 5.").note
        'no \\boxed{}'
    """
    if finish == "length":
        return Extraction(None, TRUNCATED)
    text = after_thinking(response)
    if text is None:
        return Extraction(None, UNCLOSED)
    answer = last_box(text)
    return Extraction(None, NO_BOX) if answer is None else Extraction(answer, "")


def fold(text: str) -> str:
    """Fold Unicode forms that look alike: full-width and styled characters, decimal digits, minus signs, blanks.

    This is NFKC without the parts that change a value: superscripts and fractions stay as they are, because NFKC
    would turn "5²" into "52" and "3½" into "31" over 2.
    """
    if text.isascii():
        return text
    text = text.translate(_MINUS).translate(_INVISIBLE)
    folded = text.translate({ord(c): _fold_character(c) for c in set(text)})
    return unicodedata.normalize("NFC", folded)


def _fold_character(character: str) -> str:
    if character.isascii():
        return character
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith(_FOLDED_FORMS):
        return unicodedata.normalize("NFKC", character)
    return character


def squeeze(text: str) -> str:
    """Fold Unicode forms, then strip and collapse blanks."""
    return " ".join(fold(text).split())


def balanced(text: str) -> bool:
    r"""Whether braces match; an escaped brace, such as that of a set, is none."""
    depth = 0
    for part in re.findall(r"\\.?|[{}]", text, re.DOTALL):
        depth += (part == "{") - (part == "}")
        if depth < 0 or part == "\\":
            return False
    return depth == 0
