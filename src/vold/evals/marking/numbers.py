# ruff: noqa: RUF001 (look-alike characters are what models write)
"""Read a number out of an answer that is nothing but a number: no search through text, no arithmetic on model text."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from math import floor
from typing import NamedTuple

from vold.graders.extract import squeeze
from vold.graders.mathematics.units import UNITS, unit_name

MAX_CHARS = 200
"""A longer answer is no number that a benchmark asks for."""

MAX_LIST_CHARS = 2000

_WRAPPER = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_LAYOUT = re.compile(r"\\(?:displaystyle|left|right|quad|qquad)(?![a-zA-Z])|\\[,;:! ()\[\]]|~")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\(?:degree|textdegree)(?![a-zA-Z])|[°º]")
_MONEY = re.compile(r"([+-]?)\s*(?:(?:US)?\\?\$|(€|\\euro)|(£|\\pounds))\s*(?=[+-]?[\d.])")
_NAME = re.compile(r"(?:\\angle\s*[A-Z]{1,3}|[A-Z]{1,3}|[a-z])(?:_\{?\w{1,3}\}?)?\s*(?:=|≈|\\approx(?![a-zA-Z]))\s*")
_ABOUT = re.compile(r"(?:approximately|approx\.?|about|roughly|around|nearly)\s+(?=[\d.$\\+-])", re.IGNORECASE)
_CALLED = re.compile(r"(?:the )?(?!not\b)[A-Za-z]{2,20}(?: (?!not\b)[A-Za-z]{1,20}){0,3} ?(?:=|:) ?(?=[\d.$\\+-])")
_QUOTED = re.compile(r"([\"'`]|\*\*)(.*)\1", re.DOTALL)
_ONES = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS_IN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(f"{_ONES} {_TEENS}".split())}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS_IN_WORDS.split(), 2)}
_IN_WORDS = re.compile(rf"({'|'.join(_WORDS)})(?:[- ]({_ONES.replace(' ', '|')}))?(?= [a-z]+$|$)", re.IGNORECASE)
_SCALE = re.compile(r"[ -](hundred|thousand|million|billion|trillion|dozen)s?(?![A-Za-z])")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_TENS = re.compile(
    rf"(?:({_DECIMAL})\s*(?:\\times|\\cdot|[x*×·⋅])\s*)?10\s*\^\s*(?:\{{\s*([+-]?[0-9]{{1,3}})\s*\}}|([+-]?[0-9]{{1,3}}))"
)
_FRACTION = re.compile(
    rf"(?:({_WHOLE})\s*)?(?:\\[dtc]?frac\s*(?:\{{\s*([+-]?{_DECIMAL})\s*\}}\s*\{{\s*({_DECIMAL})\s*\}}|([0-9])\s*([0-9])(?![0-9])))"
    rf"|(?:([0-9]+) +)?({_DECIMAL})\s*/\s*({_DECIMAL})"
)
_PLAIN = re.compile(_DECIMAL)

_UNIT_SHAPE = re.compile(r"[A-Za-zµμΩ%$€£./^·⋅ 23²³'-]{1,60}")
_TEMPERATURE = re.compile(r"degrees (?:[CFK]|[Cc]elsius|[Ff]ahrenheit|[Kk]elvin)")
_EACH = re.compile(r" (?:a|an|per|each|every) [a-z]{3,}")
_COUNTED = re.compile(r"[A-Za-z]{3,}(?: (?:a|an|per|each|every) [a-z]{3,}| in total| in all| altogether| left| each)?")
# "14个", "14 个苹果": a Chinese, Japanese or Korean word for what is counted; "个半" is a half more, "个以上"
# at least so many.
_COUNTED_IN_CJK = re.compile(
    r"[个個只隻条條张張名块塊本辆輛棵颗顆支枝件种種片头頭匹朵座枚人개명](?:(?![半百千万萬亿億以多余餘])[\u4e00-\u9fff]){0,8}"
)
_NO_UNIT = {
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves", "third", "thirds",
    "quarter", "quarters", "pair", "pairs", "times", "plus", "minus", "and", "not", "nor", "but", "percent",
    "percentage", "points", "or",
}  # fmt: skip
_SYMBOLS = {
    "V", "mV", "kV", "A", "mA", "μA", "W", "mW", "kW", "MW", "GW", "J", "mJ", "kJ", "MJ", "N", "kN", "Pa",
    "kPa", "MPa", "GPa", "bar", "atm", "Hz", "kHz", "MHz", "GHz", "Ω", "mΩ", "kΩ", "MΩ", "K", "mol", "C", "F",
    "μF", "nF", "pF", "H", "mH", "T", "mT", "eV", "keV", "MeV", "dB", "rpm", "ppm", "nm", "μm", "ms", "μs",
    "ns", "cal", "kcal", "ha",
}  # fmt: skip


class Quantity(NamedTuple):
    """A number and the unit behind it in one spelling ("": none), with whether that is a unit beyond doubt."""

    value: Fraction
    unit: str = ""
    sure: bool = True


def read_quantity(text: str) -> Quantity | None:
    r"""The number, and what is behind it, that `text` is; None if it is no number or has an operator behind it.

    Reads digits of any script, thousands separators (comma or blank), decimals, `1e3`, `1.5 \times 10^3`, `3/4`,
    `\frac{3}{4}`, mixed fractions, money signs in front, also inside dollar signs, `\text{}` or brackets, and after a
    name with an equals sign ("x = 5", but not "1 = 5").

    Example:
        >>> read_quantity(r"1,234 \text{ apples}").unit, read_quantity("2+3"), read_quantity(r"1\frac{3}{4}").value
        ('apple', None, Fraction(7, 4))
    """
    if len(text) > MAX_CHARS:
        return None
    bare = _bare(text)
    money, bare = _money(bare)
    bare = bare.replace("$", "").strip()
    sign = -1 if bare.startswith("-") else 1
    bare = bare[1:].lstrip() if bare[:1] in ("+", "-") else bare
    for pattern, value_of in ((_TENS, _tens), (_FRACTION, _fraction), (_PLAIN, _plain)):
        found = pattern.match(bare)
        if found is None:
            continue
        value = value_of(found)
        rest = bare[found.end() :]
        scale = _SCALE.match(rest)
        if value is not None and scale is not None:
            value, rest = value * _SCALES[scale[1]], rest[scale.end() :]
        if value is None or (money and rest and not _EACH.fullmatch(rest)):
            return None
        unit = Quantity(value, money) if money or not rest else _with_unit(value, rest)
        return None if unit is None else unit._replace(value=sign * value)
    return None


def read_list(text: str) -> tuple[Fraction, ...] | None:
    """The numbers of a list, in order, with or without brackets; None if any part is no plain number.

    Example:
        >>> read_list("[1, 2.5]")
        (Fraction(1, 1), Fraction(5, 2))
    """
    if len(text) > MAX_LIST_CHARS:
        return None
    bare = (
        _LAYOUT.sub(" ", _WRAPPER.sub(r" \1 ", squeeze(text)).replace(r"\{", "{").replace(r"\}", "}"))
        .replace("$", "")
        .strip()
        .rstrip(".")
    )
    if bare[:1] in ("[", "(", "{") and bare[-1:] in ("]", ")", "}"):
        bare = bare[1:-1]
    bare = re.sub(r"^(?:between|from)\s+", "", bare, flags=re.IGNORECASE)
    found = [read_quantity(part) for part in re.split(r"\s*(?:[,;](?:\s*and\b)?|\band\b)\s*", bare)]
    return tuple(q.value for q in found if q and not q.unit) if all(q and not q.unit for q in found) else None


def one_unit(text: str) -> str:
    """One spelling of a unit that a benchmark names: "centimeters" is "cm", "°" is "deg", "cm²" is "cm^2"."""
    bare = _bare(text)
    if _SYMBOLS.intersection(_unit_parts(bare)):
        return bare.replace(" ", "")  # case tells mW from MW
    return {"$": "dollar", "€": "euro", "£": "pound sterling"}.get(bare, unit_name(bare))


def decimals(text: str) -> int | None:
    """How many decimals a number is written with; None for a fraction, which has no last decimal."""
    if "/" in text or "frac" in text or _VULGAR.search(text):
        return None
    found = re.search(r"\.([0-9]+)", squeeze(text))
    return len(found[1]) if found else 0


def rounds_to(found: Fraction, gold: Fraction, places: int) -> bool:
    """Whether both are the same number after rounding to `places` decimals; a tie may go up or to even.

    Both ways of breaking a tie are in use, and an answer should not hang on which.

    Example:
        >>> rounds_to(Fraction("1.25"), Fraction("1.3"), 1), rounds_to(Fraction("1.25"), Fraction("1.2"), 1)
        (True, True)
    """
    a, b = found * 10**places, gold * 10**places
    return round(a) == round(b) or _half_up(a) == _half_up(b)


def _half_up(number: Fraction) -> int:
    size = floor(abs(number) + Fraction(1, 2))
    return size if number >= 0 else -size


def _bare(text: str) -> str:
    text = squeeze(text)
    quoted = _QUOTED.fullmatch(text)
    text = quoted[2].strip() if quoted else text
    for _ in range(3):
        text = _WRAPPER.sub(r" \1 ", text)
    text = _LAYOUT.sub(" ", _DEGREES.sub(" degrees ", text)).replace("{,}", ",").replace(r"\%", "%")
    text = text.replace(r"\Omega", "Ω").replace(r"\mu", "μ").replace("µ", "μ")
    text = _SUPERSCRIPTS.sub(lambda run: "^" + unicodedata.normalize("NFKC", run[0]).replace("−", "-"), text)
    text = _VULGAR.sub(lambda one: " " + unicodedata.normalize("NFKC", one[0]).replace("⁄", "/"), text)
    text = " ".join(text.split())
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text[1:-1].strip()
    text = text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text
    if text[:1] + text[-1:] in ("()", "{}") and text.count(text[0]) == 1:
        text = text[1:-1].strip()
    for label in (_NAME, _CALLED, _ABOUT):
        text = label.sub("", text, count=1) if label.match(text) else text
    in_words = _IN_WORDS.match(text)
    if in_words:
        text = str(sum(_WORDS[w.lower()] for w in in_words.groups() if w)) + text[in_words.end() :]
    text = text.removeprefix("=").lstrip()
    approximate = re.split(r"≈|\\approx(?![a-zA-Z])", text)
    return approximate[1].strip() if len(approximate) == 2 else text


def _money(text: str) -> tuple[str, str]:
    found = _MONEY.match(text)
    if found is None:
        return "", text
    name = "euro" if found[2] else "pound sterling" if found[3] else "dollar"
    return name, found[1] + text[found.end() :]


def _with_unit(value: Fraction, rest: str) -> Quantity | None:
    plain = rest.strip()
    if _COUNTED_IN_CJK.fullmatch(plain):
        return Quantity(value, plain)
    if not _UNIT_SHAPE.fullmatch(plain) or plain[0] in "./^·⋅23²³'-":
        return None
    apart = rest[0] == " "
    if _is_unit(plain, apart):
        return Quantity(value, one_unit(plain))
    # "14 apples" names what was counted; "14x" is a product and "14 thousand" another number.
    if not apart or not any(c.isalpha() for c in plain) or set(plain.lower().split()) & _NO_UNIT:
        return None
    return Quantity(value, one_unit(plain), sure=_COUNTED.fullmatch(plain) is not None)


def _is_unit(text: str, apart: bool) -> bool:
    if text in ("%", "percent", "percentage", "pct", "$", "€", "£"):
        return True
    known = [n in _SYMBOLS or n in UNITS or n.lower() in UNITS or _TEMPERATURE.fullmatch(n) for n in _unit_parts(text)]
    return all(known) and (apart or len(text) > 1)


def _unit_parts(text: str) -> list[str]:
    parts = re.split(r"\s*[/·⋅]\s*|\s+per\s+", re.sub(r"^(?:square|sq\.?|cubic|cu\.?)\s+", "", text))
    return [re.sub(r"\s*\^?\s*[23²³]$", "", part).rstrip(".") for part in parts]


def _plain(found: re.Match[str]) -> Fraction | None:
    return _number(found[0])


def _tens(found: re.Match[str]) -> Fraction | None:
    factor = Fraction(1) if found[1] is None else _number(found[1])
    return factor * Fraction(10) ** int(found[2] or found[3])


def _fraction(found: re.Match[str]) -> Fraction | None:
    if found[7]:
        whole, top, bottom = found[6], found[7], found[8]
    else:
        whole, top, bottom = found[1], found[2] or found[4], found[3] or found[5]
    below = _number(bottom)
    if below == 0 or (whole and top[:1] in "+-"):
        return None
    part = (-1 if top[0] == "-" else 1) * _number(top.lstrip("+-")) / below
    return part if not whole else _number(whole) + part


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))
