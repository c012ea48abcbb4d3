# ruff: noqa: RUF001, RUF002 (the look-alike characters are what this module is about)
r"""Bring a mathematical answer into one notation, and refuse pairs that Math-Verify 0.9.0 would wrongly accept.

Pure string work on short text (the callers cap its length); it runs inside the worker process all the same. What the
rules mend, each with a test:

- Unicode minus, full-width digits, superscripts, fractions and signs such as "×" and "π"; "1e3"; "1 000"; `\frac12`;
  `\sqrt2`; "east" read as e*a*s*t.
- Accepted by Math-Verify, refused here: 10% for 10 or 0.1, "5 m" for "5 cm", 101_2 for 101, "(1,2)" for "1,2",
  D for d, "seat" for "east", two numbers side by side ("2 3" reads as 5).

A percent sign and a base are part of the answer: both sides have them or neither. A unit may be left out, but two
different units are wrong; units are not converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vold.graders.extract import fold, squeeze

_SYMBOLS = {
    "×": r"\times ", "÷": "/", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "∕": "/", "⁄": "/", "∶": ":", "π": r"\pi ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ",
    "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "°": r"^\circ ",
    "º": r"^\circ ", "√": r"\sqrt ", "¼": r"\frac{1}{4}", "½": r"\frac{1}{2}", "¾": r"\frac{3}{4}",
    "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⅛": r"\frac{1}{8}", "€": r"\euro ", "£": r"\pounds ",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")

_UNIT_NAMES = """
% percent percentage pct
deg degree degrees
cm centimeter centimeters centimetre centimetres
mm millimeter millimeters millimetre millimetres
km kilometer kilometers kilometre kilometres
m meter meters metre metres
in inch inches
ft foot feet
yd yard yards
mi mile miles
kg kilogram kilograms
g gram grams
mg milligram milligrams
lb lbs pound pounds
oz ounce ounces
s sec secs second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years
dollar dollars usd
cent cents
euro euros
unit units
L l liter liters litre litres
mL ml milliliter milliliters
m/s
km/h kmh kph
mph
rad radian radians
"""
UNITS = {name: line.split()[0] for line in _UNIT_NAMES.strip().splitlines() for name in line.split()}
"""Every spelling of a unit that is known by itself, with the one it is compared under."""

_SPELT = "|".join(sorted((re.escape(name) for name in UNITS if name != "%"), key=len, reverse=True))
_POWER = r"(?:\s*\^\s*\{?\s*([23])\s*\}?)?"
_LONG = "|".join(sorted((re.escape(name) for name in UNITS if len(name) > 1), key=len, reverse=True))
_BARE_UNIT = re.compile(rf"(?<=[\d}})])(?:\s+(?:square |cubic |sq\.? |cu\.? )?(?:{_SPELT})|\s*(?:{_LONG}))\.?{_POWER}$")
_BRACED_UNIT = re.compile(rf"(?<=\d)\{{\s*({_LONG})\s*\}}$")
_TEXT = r"\\(?:text|mathrm|mbox|textrm|textit|textbf|operatorname)\s*\{([^{}]*)\}"
_TEXT_UNIT = re.compile(rf"(?:{_TEXT}{_POWER}\s*(?:/|\\cdot)?\s*)+$")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*$|\s*\\degree\s*$")
_ALL_TEXT = re.compile(rf"(?:{_TEXT}\s*)+$")
_BASE = re.compile(r"([0-9A-Za-z]+)\s*_\s*(?:\{\s*(?:\\text\{)?\s*(\w+)\s*\}*|(\d+))$")
_BASE_NAMES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_SCIENTIFIC = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))[eE]([+-]?\d{1,4})$")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d])")
_SIDE_BY_SIDE = re.compile(r"(?<![_\d.])\d[\d.]*\s+[\d.]")  # but not \log_2 8
_HEDGE = re.compile(r"\b(?:or|and|not|nor|but)\b|[0-9]")
_WORDS = re.compile(r"[A-Za-z]+(?:[ '-][A-Za-z]+)*$")
_SHORT_WORDS = {"no", "yes", "odd", "all", "one", "two", "six", "ten", "red"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Unreadable(ValueError):
    """The text is no mathematical answer that could be compared."""


@dataclass(frozen=True)
class Notation:
    """An answer taken apart: `latex` without unit and base, the `unit`, the `base`, or `words` instead of maths."""

    latex: str
    unit: str = ""
    base: str = ""
    words: str = ""


def read(text: str) -> Notation:
    """Take an answer apart.

    Raises:
        Unreadable: it is empty, holds control characters, or puts two numbers side by side.
    """
    if _CONTROL.search(text):
        raise Unreadable("control character")
    latex = _tidy(text)
    latex = _exact_side(latex)
    words = _as_words(latex)
    if words:
        return Notation(latex, words=words)
    latex, unit = _split_unit(latex)
    scientific = _SCIENTIFIC.match(latex)
    if scientific:
        latex = rf"{scientific[1]}\times 10^{{{int(scientific[2])}}}"
    based = _BASE.match(latex)
    if based:
        digits, name, number = based.groups()
        name = name or number
        base = _BASE_NAMES.get(name, name)
        if base.isdecimal() and any(c.isdigit() for c in digits):
            return Notation(digits.upper().lstrip("0") or "0", unit, base)
    latex = _SPACED_THOUSANDS.sub(lambda found: found.group().replace(" ", ""), latex)
    if _SIDE_BY_SIDE.search(latex):
        raise Unreadable("two numbers side by side")
    if not latex:
        raise Unreadable("empty")
    return Notation(latex, unit)


def _tidy(text: str) -> str:
    latex = fold(text)
    if not latex.isascii():
        latex = _SUPERSCRIPT_RUN.sub(lambda run: f"^{{{run.group().translate(_SUPERSCRIPTS)}}}", latex)
        latex = re.sub(r"(\d)\s*([¼½¾⅓⅔⅛])", r"\1 \2", latex)
        latex = "".join(_SYMBOLS.get(character, character) for character in latex)
    latex = re.sub(
        r"\\(?:boxed|fbox)\b|\\displaystyle\b|\\underline\b|\\(?:text)?color\s*\{[^{}]*\}|\\limits\b|\\left(?![a-zA-Z])|\\right(?![a-zA-Z])",
        "",
        latex,
    )
    latex = latex.replace(r"\$", r"\dollar ")
    if latex.strip().startswith("$") and latex.count("$") == 1:
        latex = latex.replace("$", r"\dollar ")
    latex = re.sub(r"(?<!\\)\$|\\[()\[\]]", " ", latex)
    latex = re.sub(r"(\d)\{,\}(?=\d{3})", r"\1,", latex)
    latex = re.sub(r"\\(?:quad|qquad)\b|\\(?:thinspace|enspace|hspace\{[^{}]*\})|\\[,;:! ]|~", " ", latex)
    latex = re.sub(r"\\[dtc]frac\b", r"\\frac", latex)
    latex = re.sub(r"\\frac\s*(\d)\s*(\d)(?![\d.])", r"\\frac{\1}{\2}", latex)
    latex = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", latex)
    latex = re.sub(r"\\sqrt\s*(\d+|[a-zA-Z](?![a-zA-Z]))", r"\\sqrt{\1}", latex)
    latex = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", latex)
    latex = re.sub(r"\\(?:leqslant|leq)\b", r"\\le", latex)
    latex = re.sub(r"\\(?:geqslant|geq)\b", r"\\ge", latex)
    latex = latex.replace(r"\varnothing", r"\emptyset")
    latex = re.sub(r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*,?\s*(?:or|and)\s*\}|,?\s\b(?:or|and)\b(?=\s)", ", ", latex)
    latex = _BRACED_UNIT.sub(r" \1", latex)
    return squeeze(latex).rstrip(".,;").strip()


def _exact_side(latex: str) -> str:
    """Keep the exact side of an approximation: "1/3" of "1/3 ≈ 0.333", but "x=7" of "x ≈ 7"."""
    left, sign, right = latex.partition(r"\approx")
    if not sign:
        return latex
    left, right = left.strip(), right.split(r"\approx")[0].strip()
    return f"{left}={right}" if re.fullmatch(r"[A-Za-z](?:_\{?\w\}?)?", left) else left


def _as_words(latex: str) -> str:
    wrapped = _ALL_TEXT.match(latex)
    plain = squeeze(re.sub(_TEXT, r" \1 ", latex)).rstrip(".") if wrapped else latex
    if not _WORDS.match(plain) or (wrapped and len(plain) == 1):
        return ""
    known = wrapped or len(plain) >= 4 or plain.lower() in _SHORT_WORDS
    return plain.casefold() if known else ""


def _split_unit(latex: str) -> tuple[str, str]:
    money = re.match(r"\\(dollar|euro|pounds)\s*", latex)
    if money and latex[money.end() :]:
        return _split_unit(latex[money.end() :])[0], {"pounds": "pound sterling"}.get(money[1], money[1])
    percent = re.match(r"(.*[^\s\\])\s*(?:\\?%|percent|percentage|pct)$", latex)
    if percent:
        return percent[1], "%"
    for pattern in (_DEGREES, _TEXT_UNIT, _BARE_UNIT):
        found = pattern.search(latex)
        head = latex[: found.start()].strip() if found else ""
        if not found or not _is_quantity(head) or (pattern is _BARE_UNIT and _letters(head)):
            continue
        if pattern is _TEXT_UNIT and any(map(_hedges, re.findall(_TEXT, found[0]))):
            raise Unreadable("words beside the value")
        return head, "deg" if pattern is _DEGREES else unit_name(found.group())
    return latex, ""


def _hedges(words: str) -> bool:
    return bool(_HEDGE.search(re.sub(r"\^[23]", "", words)))


def _is_quantity(head: str) -> bool:
    """Whether a unit may follow: the text ends like a number or an expression, not like an operator."""
    return bool(re.search(r"[\da-zA-Z)}\].]$", head))


def unit_name(text: str) -> str:
    """One spelling for a unit: `\\text{ square centimeters}`, `\\mathrm{cm}^{2}` and "cm^2" are all "cm^2"."""
    plain = squeeze(re.sub(r"[{}\\^]|\\cdot", " ", re.sub(_TEXT, r" \1 ", text))).strip(" .")
    area = re.match(r"(square|sq\.?|cubic|cu\.?)\s+(.*)", plain)
    power = {"s": "^2", "c": "^3"}[area[1][0]] if area else ""
    plain = area[2] if area else plain
    trailing = re.match(r"(.*\S)\s*([23])$", plain)
    if trailing:
        plain, power = trailing[1], f"^{trailing[2]}"
    plain = plain.replace(" / ", "/").replace(" per ", "/")
    name = UNITS.get(plain) or UNITS.get(plain.lower()) or plain.lower().removesuffix("s")
    return name + power


def refuse(gold: Notation, answer: Notation) -> str:
    """Return why the pair is wrong whatever their values are, or "" if the values decide."""
    if gold.words or answer.words:
        return "" if gold.words == answer.words else "words differ"
    if gold.base != answer.base or (gold.base and gold.latex != answer.latex):
        return "bases or digits differ"
    if (gold.unit == "%") != (answer.unit == "%"):
        return "a percentage on one side only"
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return f"units differ: {answer.unit} for {gold.unit}"
    if {_kind(gold.latex), _kind(answer.latex)} == {"tuple", "list"}:
        return "an ordered tuple or interval on one side, a list on the other"
    if _case_differs(_letters(gold.latex), _letters(answer.latex)):
        return "upper and lower case differ"
    return ""


def segments(latex: str, separators: str) -> list[str]:
    """Split at top-level `separators` (outside brackets), keeping relations such as `\\le`, ">=" and "!=" whole."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(latex):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and character in separators and (i == 0 or latex[i - 1] not in "\\<>!:"):
            parts.append(latex[start:i].strip())
            start = i + 1
    return [*parts, latex[start:].strip()]


def _kind(latex: str) -> str:
    """Return "tuple" for (1,2) or [1,2], "list" for 1,2 and {1,2}, "one" for anything without commas."""
    body = segments(latex, "=")[-1].replace(r"\{", "{").replace(r"\}", "}")
    if len(segments(body, ",")) > 1:
        return "list"
    inner = body[1:-1]
    if len(body) < 2 or body[0] not in "([{" or body[-1] not in ")]}" or len(segments(inner, ",")) < 2:
        return "one"
    return "list" if body[0] == "{" else "tuple"


def _letters(latex: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]", re.sub(rf"{_TEXT}|\\[a-zA-Z]+", " ", latex)))


def _case_differs(gold: set[str], answer: set[str]) -> bool:
    return any(c in gold and c.swapcase() not in gold for c in {x.swapcase() for x in answer - gold})
