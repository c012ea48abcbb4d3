"""Read a number out of an answer that is nothing but a number: no arithmetic, no search through text."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from vold.graders.extract import squeeze

MAX_CHARS = 100
"""A longer answer is no number that a benchmark asks for."""

_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|displaystyle)\b\s*\{([^{}]*)\}")
_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d{1,3})?"
_WHOLE = re.compile(rf"({_NUMBER})")
_FRACTION = re.compile(r"([+-]?)\s*(?:\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}|(\d+)\s*/\s*(\d+))")
_POWER_OF_TEN = re.compile(rf"({_NUMBER})\s*(?:\\times|\\cdot|x|\*)\s*10\s*\^\s*\{{?\s*([+-]?\d{{1,3}})\s*\}}?")
_WORD = re.compile(r"[A-Za-z]{3,}")
_SCALES = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "percent", "half", "pairs", "and", "plus"}


def read_number(text: str, unit: str | None = None) -> Decimal | None:
    r"""The number that `text` is, or None.

    Reads digits of any script, thousands separators, decimals, `1e3`, `1.5 \times 10^3`, `3/4` and `\frac{3}{4}`, also
    inside dollar signs or `\text{}`. What may follow is `unit`, or, where no unit is known, one plain word of at least
    three letters that is no scale ("14 apples", but not "14 thousand" and not "5 km").

    Example:
        >>> read_number("1,234 apples"), read_number("5 km"), read_number(r"\frac{3}{4}")
        (Decimal('1234'), None, Decimal('0.75'))
    """
    if len(text) > MAX_CHARS:
        return None
    bare = _bare(text)
    for pattern, read in ((_POWER_OF_TEN, _power), (_FRACTION, _fraction), (_WHOLE, _decimal)):
        found = pattern.match(bare)
        if found is None or not found[0].strip():
            continue
        value = read(found)
        if value is not None and _may_follow(bare[found.end() :].strip(), unit):
            return value
    return None


def read_numbers(text: str) -> tuple[Decimal, ...] | None:
    """The numbers of a list, with or without brackets; None if any part is no number.

    Example:
        >>> read_numbers("[1, 2.5]")
        (Decimal('1'), Decimal('2.5'))
    """
    if len(text) > 10 * MAX_CHARS:
        return None
    bare = _bare(text).strip()
    if bare[:1] in "[({" and bare[-1:] in "])}":
        bare = bare[1:-1]
    values = [read_number(part) for part in re.split(r"\s*[,;]\s*", bare)]
    return None if None in values else tuple(v for v in values if v is not None)


def _bare(text: str) -> str:
    text = squeeze(text).replace("\u00d7", r"\times ")
    for _ in range(3):
        text = _WRAPPER.sub(r" \1 ", text)
    text = re.sub(r"\\[,;:! ]|\$|~", " ", text).replace("{,}", ",").replace(r"\%", "%")
    text = " ".join(text.split())
    return text[:-1].rstrip() if text.endswith(".") and not text[:-1].endswith(".") else text


def _decimal(found: re.Match[str]) -> Decimal | None:
    try:
        return Decimal(found[1].replace(",", ""))
    except InvalidOperation:
        return None


def _power(found: re.Match[str]) -> Decimal | None:
    try:
        return Decimal(found[1].replace(",", "")).scaleb(int(found[2]))
    except InvalidOperation:
        return None


def _fraction(found: re.Match[str]) -> Decimal | None:
    top, bottom = Decimal(found[2] or found[4]), Decimal(found[3] or found[5])
    if bottom == 0:
        return None
    return -(top / bottom) if found[1] == "-" else top / bottom


def _may_follow(rest: str, unit: str | None) -> bool:
    if not rest:
        return True
    if unit is not None:
        return rest.casefold().replace(" ", "") == squeeze(unit).casefold().replace(" ", "")
    return _WORD.fullmatch(rest) is not None and rest.casefold() not in _SCALES
