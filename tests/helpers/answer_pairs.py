r"""Pairs of a reference and an answer with known truth, made by rules.

A value is made first, as an exact Python object (`Fraction`, tuples, coefficients); then it is written down in one of
many notations. Two writings of one value are equal, writings of two values that differ are not. The truth is a
comparison of the Python objects: no grader and no computer algebra takes part.

`math_pairs()` and `choice_pairs()` give the same pairs at every call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import comb, factorial, gcd, lcm
from typing import Any, NamedTuple

F = Fraction


class Pair(NamedTuple):
    """A reference, an answer, and whether the answer is right; `kind` names the class of answers."""

    kind: str
    reference: str
    answer: str
    right: bool


# -- writing numbers -------------------------------------------------------------------------------------------------


def _terminates(value: F) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def _decimal(value: F) -> str:
    """A terminating decimal, written out."""
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _period(value: F) -> tuple[str, str, str]:
    """Digits before the point, behind it, and the period, of a positive fraction."""
    whole, rest = divmod(value.numerator, value.denominator)
    digits, seen = "", {}
    while rest and rest not in seen:
        seen[rest] = len(digits)
        digit, rest = divmod(rest * 10, value.denominator)
        digits += str(digit)
    cut = seen.get(rest, len(digits)) if rest else len(digits)
    return str(whole), digits[:cut], digits[cut:]


def _repeating(value: F, rng: random.Random) -> str:
    whole, fixed, period = _period(abs(value))
    marks = [rf"\overline{{{period}}}", rf"\bar{{{period}}}", rf"\overline{{ {period} }}"]
    if len(period) == 1:
        marks += [rf"\dot{{{period}}}", rf"\dot {period}", rf"\bar{period}", rf"\overline{period}"]
    else:
        marks.append(rf"\dot{{{period[0]}}}{period[1:-1]}\dot{{{period[-1]}}}")
    return f"{'-' if value < 0 else ''}{whole}.{fixed}{rng.choice(marks)}"


def _fraction(value: F, rng: random.Random) -> str:
    sign, p, q = "-" if value < 0 else "", abs(value.numerator), value.denominator
    k = rng.choice((1, 1, 2, 3, 7))
    forms = [
        rf"{sign}\frac{{{p}}}{{{q}}}", rf"{sign}\dfrac{{{p}}}{{{q}}}", rf"{sign}\tfrac{{{p}}}{{{q}}}",
        rf"{sign}\cfrac{{{p * k}}}{{{q * k}}}", f"{sign}{p}/{q}", rf"\frac{{{sign}{p}}}{{{q}}}",
        rf"{sign}\frac {{ {p} }} {{ {q} }}", rf"{sign}\left(\frac{{{p * k}}}{{{q * k}}}\right)",
        rf"{sign}{p} \div {q}", rf"{sign}{{{p} \over {q}}}", rf"{sign}{p} / {q}",
    ]  # fmt: skip
    if p < 10 and q < 10:
        forms += [rf"{sign}\frac{p}{q}", rf"{sign}\dfrac{p}{q}", rf"{sign}\tfrac {p}{q}", rf"{sign}\frac {p} {q}"]
    if q < 10:
        forms += [rf"{sign}\frac{{{p}}}{q}", rf"{sign}\dfrac{{{p}}} {q}"]
    if p < 10:
        forms.append(rf"{sign}\frac{p}{{{q}}}")
    return rng.choice(forms)


def _mixed(value: F, rng: random.Random) -> str:
    whole, rest = divmod(abs(value), 1)
    sign = "-" if value < 0 else ""
    p, q = rest.numerator, rest.denominator
    forms = [rf"{whole}\frac{{{p}}}{{{q}}}", rf"{whole} \dfrac{{{p}}}{{{q}}}", f"{whole} {p}/{q}"]
    if p < 10 and q < 10:
        forms += [rf"{whole}\frac{p}{q}", rf"{whole}\,\tfrac{p}{q}"]
    return sign + rng.choice(forms)


def _grouped(value: int, rng: random.Random) -> str:
    plain = f"{abs(value):,}"
    sign = "-" if value < 0 else ""
    separators = (",", "{,}", r"\,", " ", r",\!", "")
    return sign + plain.replace(",", rng.choice(separators))


def number(value: F, rng: random.Random) -> str:
    """A rational number in any notation."""
    forms = [_fraction(value, rng)] * 2
    if value.denominator == 1:
        forms = [str(value), str(value), f"{value}.0", _grouped(int(value), rng)]
    elif _terminates(value):
        forms += [_decimal(value), _decimal(value) + "0", _decimal(value).replace("0.", ".", 1)]
    elif len(_period(abs(value))[2]) < 7:
        forms.append(_repeating(value, rng))
    if abs(value) > 1 and value.denominator != 1:
        forms.append(_mixed(value, rng))
    return rng.choice(forms)


def short(value: F, rng: random.Random) -> str:
    """A rational number inside a larger answer: an integer, a fraction or a decimal."""
    if value.denominator == 1:
        return str(value)
    sign = "-" if value < 0 else ""
    forms = [rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"]
    if _terminates(value):
        forms.append(_decimal(value))
    return rng.choice(forms)


def dressed(text: str, rng: random.Random) -> str:
    """The same answer with layout round it."""
    name = rng.choice(("x", "y", "n", "S", "k", r"\theta", "x_1", "a_{10}", "f(x)", "f(2)", "P(A)", r"\angle B"))
    return rng.choice(
        (text, text, text, text, f"${text}$", rf"\displaystyle {text}", f"{text}.", f" {text} ", rf"\mathbf{{{text}}}",
         rf"{{{text}}}", f"{name} = {text}", f"{name}={text}", rf"\left({text}\right)",
         rf"\textcolor{{blue}}{{{text}}}")
    )  # fmt: skip


def near(value: F, rng: random.Random) -> F:
    """Another rational number, close to the first in looks."""
    p, q = value.numerator, value.denominator
    others = [-value, value + 1, value - 1, F(p + 1, q), F(p, q + 1), value * 10, value / 10, value * 2]
    others += [value + F(1, 100), *([F(q, p)] if p else [])]
    others += [F(int(str(abs(p))[::-1]), q)]
    return rng.choice([other for other in others if other != value])


def rational(rng: random.Random, size: int = 40) -> F:
    """A rational number that is not zero."""
    return F(rng.choice((-1, 1, 1, 1)) * rng.randint(1, size), rng.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 20)))


# -- classes of answers: each yields (reference, answer, right) --------------------------------------------------

Made = Iterator[tuple[str, str, bool]]


def _both(rng: random.Random, value: Any, other: Any, write: Callable[[Any], str]) -> Made:
    """The value against itself and against another, in notations drawn anew."""
    yield write(value), write(value), True
    yield write(value), write(other), value == other


def rationals(rng: random.Random) -> Made:
    value = rational(rng)
    for plain in (True, False):
        yield number(value, rng), dressed(number(value, rng), rng) if plain else number(value, rng), True
        yield number(value, rng), dressed(number(near(value, rng), rng), rng), False


def unbraced(rng: random.Random) -> Made:
    """`\\frac12`, `\\frac{270}7`, `\\frac\\pi2`, `\\frac{\\sqrt3}2`."""
    p, q = rng.randint(1, 9), rng.randint(2, 9)
    name, bare = rng.choice(
        ((r"\pi", r"\pi"), ("x", " x"), (r"\theta", r"\theta"), (r"\sqrt{3}", r"{\sqrt3}"), ("e", " e"))
    )
    command, other = rng.choice((r"\frac", r"\dfrac", r"\tfrac")), q % 8 + 2
    yield rf"\frac{{{name}}}{{{q}}}", f"{command}{bare}{q}", True
    yield rf"\frac{{{name}}}{{{q}}}", f"{command}{bare}{other}", q == other
    big = rng.randint(100, 999)
    yield str(F(big, q)), rf"{command}{{{big}}}{q}", True
    yield rf"\frac{{{big}}}{{{q}}}", rf"{command}{{{big + 1}}}{q}", False
    yield str(F(p, q)), f"{command}{p}{q}", True
    yield rf"\frac{{{p}}}{{{q}}}", f"{command}{q}{p}", p == q


def periodic(rng: random.Random) -> Made:
    digits, fixed = rng.choice((1, 1, 2, 3, 6)), rng.choice(("", "", "1", "25"))
    period = str(rng.randint(1, 10**digits - 2)).rjust(digits, "0")
    unit = F(1, 10 ** len(fixed))
    value = unit * int(fixed or 0) + unit * F(int(period), 10**digits - 1) + rng.randint(0, 3)
    if _terminates(value) or len(_period(value)[2]) > 8:
        return
    value = rng.choice((value, -value))
    wrong = value + F(rng.choice((-1, 1)), (10**digits - 1) * 10 ** len(fixed))
    yield _fraction(value, rng), _repeating(value, rng), True
    yield _repeating(value, rng), _fraction(value, rng), True
    yield _repeating(value, rng), _repeating(value, rng), True
    if not _terminates(wrong):
        yield _fraction(value, rng), _repeating(wrong, rng), False
    cut = F(int(value * 1000), 1000)
    yield _repeating(value, rng), _decimal(cut), False


def large(rng: random.Random) -> Made:
    value = rng.choice((rng.randint(1000, 9999), rng.randint(10**4, 10**7), rng.randint(10**9, 10**12)))
    other = rng.choice((value + 1, value * 10, value // 10, value + 1000, -value))
    yield from _both(rng, value, other, lambda v: _grouped(v, rng))
    money = F(rng.randint(100, 999_999), 100)
    write = rng.choice((r"\${}", "${}", r"{}\text{{ dollars}}", "{} dollars", r"\$ {}", "{}"))
    whole, cents = divmod(int(money * 100), 100)
    plain = f"{whole:,}.{cents:02d}" if rng.random() < 0.5 else f"{whole}.{cents:02d}"
    yield _decimal(money), write.format(plain), True
    yield rf"\${_decimal(money + F(1, 100))}", write.format(plain), False


def scientific(rng: random.Random) -> Made:
    digits, power = F(rng.randint(11, 99), 10), rng.randint(-6, 12)
    value, other = digits * F(10) ** power, digits * F(10) ** (power + rng.choice((-1, 1)))

    def write(v: Any) -> str:
        e = power
        while abs(v) >= F(10) ** (e + 1):
            e += 1
        while abs(v) < F(10) ** e:
            e -= 1
        m = _decimal(v / F(10) ** e)
        return rng.choice((rf"{m} \times 10^{{{e}}}", rf"{m}\times10^{{{e}}}", rf"{m} \cdot 10^{{{e}}}", f"{m}e{e}",
                           f"{m}E{e:+d}", f"{m} \u00d7 10^{{{e}}}", f"{m} x 10^{{{e}}}", _decimal(v)))  # fmt: skip

    yield from _both(rng, value, other, write)


def percents(rng: random.Random) -> Made:
    value = rational(rng)
    other = near(value, rng)

    def sign(v: F) -> str:
        return number(v, rng) + rng.choice((r"\%", "%", r" \%", r"\text{ percent}", " percent"))

    yield sign(value), sign(value), True
    yield sign(value), sign(other), False
    yield sign(value), number(value / 100, rng), False
    yield number(value, rng), sign(value), False


_UNITS = (
    ("cm", ("cm", "centimeters", "centimetres")), ("m", ("m", "meters", "metres")), ("km", ("km", "kilometers")),
    ("in", ("in", "inches")), ("kg", ("kg", "kilograms")), ("g", ("g", "grams")), ("s", ("s", "seconds", "sec")),
    ("min", ("min", "minutes")), ("h", ("h", "hours", "hr")), ("L", ("L", "liters")), ("N", ("N", "newtons")),
    ("J", ("J", "joules")), ("W", ("W", "watts")), ("V", ("V", "volts")), ("A", ("A", "amperes")), ("K", ("K",
    "kelvin")),
    ("mol", ("mol", "moles")), ("Hz", ("Hz", "hertz")), ("ft", ("ft", "feet")), ("mi", ("mi", "miles")),
    ("dollars", ("dollars",)), ("degrees", ("degrees", "deg")), ("days", ("days", "day")), ("Pa", ("Pa", "pascals")),
    ("cm^2", ("cm^2", "square centimeters", "cm^{2}")), ("m^2", ("m^2", "square meters", "sq m")),
    ("cm^3", ("cm^3", "cubic centimeters")), ("m/s", ("m/s", "m s^{-1}", "meters per second")),
    ("m/s^2", ("m/s^2", "m s^{-2}")), ("km/h", ("km/h", "kilometers per hour", "kph")), ("mph", ("mph",
    "miles per hour")),
    ("g/cm^3", ("g/cm^3", "grams per cubic centimeter")), ("J/mol", ("J/mol", "joules per mole")),
)  # fmt: skip


def units(rng: random.Random) -> Made:
    value = F(rng.randint(2, 900), rng.choice((1, 1, 1, 10, 4)))
    (name, spellings), (other_name, others) = rng.sample(_UNITS, 2)

    def write(v: F, names: tuple[str, ...]) -> str:
        unit = rng.choice(names)
        forms = [rf"\text{{ {unit}}}", rf"\,\text{{{unit}}}", rf"\ \mathrm{{{unit}}}", rf"\mbox{{ {unit}}}"]
        forms += [f" {unit}"] if len(unit) > 1 and " " not in unit else []
        if "^" in unit and "/" not in unit and " " not in unit:
            base, _, power = unit.partition("^")
            forms.append(rf"\text{{ {base}}}^{power}")
        return short(v, rng) + rng.choice(forms)

    yield write(value, spellings), write(value, spellings), True
    yield write(value, spellings), short(value, rng), True
    yield short(value, rng), write(value, spellings), True
    yield write(value, spellings), write(value, others), name == other_name
    yield write(value, spellings), write(near(value, rng), spellings), False


_REMARKS = (
    "maybe", "is wrong", "I guess", "or so", "probably", "not sure", "perhaps", "approximately", "at least", "at most",
    "?", "or more", "is incorrect", "if lucky", "I think", "wait", "no", "hmm", "not", "but maybe 7", "or 8", "and 9",
    "could be", "roughly", "give or take", "unless wrong", "thousand", "million", "hundred", "dozen", "peut-etre",
    "oder 5",
    "x", "or", "and", "apples or pears", "blah", "the other one", "ish", "plus something", "more than that",
    "minus one",
)  # fmt: skip


_REMARKED = (
    r"{}\text{{ {}}}", r"{}\mbox{{ {}}}", "{} {}", r"{} \mathrm{{{}}}", r"{}\text{{ ({})}}", "{} ({})",
    r"{}, \text{{{}}}",
    r"\text{{{} {}}}", r"{}\;\textbf{{{}}}", "{} - {}",
)  # fmt: skip
_UNSURE = (
    r"\cancel{{{}}}",
    r"\ne {}",
    r"\neg {}",
    "> {}",
    r"\le {}",
    "{}?",
    "{}??",
    "\u2260 {}",
    r"\approx {} ?",
    "{}...",
)


def remarks(rng: random.Random) -> Made:
    """Words behind a number that are no unit, and other signs of doubt."""
    value = F(rng.randint(2, 99))
    yield str(value), rng.choice(_REMARKED).format(value, rng.choice(_REMARKS)), False
    yield str(value), rf"{value}^\prime", False
    yield str(value), f"{value}{chr(39) * rng.randint(1, 3)}", False
    yield str(value), f"{value}_{{{rng.choice('xyzk')}}}", False
    yield str(value), rf"{rng.choice(('about', 'not', 'maybe', 'approximately', 'almost'))} {value}", False
    yield str(value), rf"\text{{{rng.choice(('about ', 'not ', 'under ', 'over '))}}} {value}", False
    yield str(value), rng.choice(_UNSURE).format(value), False


def equations(rng: random.Random) -> Made:
    """An equation is no value, whatever is on its right."""
    value, k = rng.randint(2, 60), rng.randint(2, 9)
    x = rng.choice("xyzabn")
    left = rng.choice(
        (f"{k}{x}", f"{x}^2", f"{x}+{k}", rf"\frac{{{x}}}{{{k}}}", rf"\sin {x}", rf"\sqrt{{{x}}}", f"0{x}", f"-{x}",
         f"{x}({x}+1)", f"{x}+y+z", f"{x}/{k}", rf"{k}\cdot {x}", f"2^{x}", rf"\log {x}", f"|{x}|", f"{x}!",
         f"{x}^{{{x}^{x}}}",
         f"({x}+1)^2", f"{x}y", f"{x} - {k}", rf"\cos(2{x})", f"3({x})", rf"\frac{{1}}{{{x}}}", f"{x}^2+y^2",
         f"{k}{x}+1",
         rf"e^{{{x}}}", rf"\lfloor {x} \rfloor", rf"\tan\frac{{{x}}}{{2}}", f"{k}f({x})", f"f({x})+1", f"f({x})^2",
         f"{x}_1+{x}_2")
    )  # fmt: skip
    yield str(value), f"{left} = {value}", False
    yield str(value), f"{left}={value}", False
    yield str(value), f"{value} = {left}", False
    yield f"{x}={value}", f"{left} = {value}", False
    name = rng.choice(("x", "y_1", "f(x)", "f(3)", "P(A)", r"\theta", "a_{n}", r"\angle ABC", "AB", r"P(X=2)", "P(A|B)",
                       "f'(1)", "f^{-1}(2)", r"\overline{AB}", r"\text{Area}", "S_n", r"m\angle A", r"\triangle ABC",
                       r"P(A \cap B)", "x_{\\text{max}}", "M'", "g(x)"))  # fmt: skip
    yield str(value), f"{name} = {value}", True
    yield str(value), f"{name}={value + 1}", False
    yield str(value), f"{value - k} + {k} = {value}", True
    yield str(value), f"{value - k} + {k + 1} = {value}", False
    yield str(value), f"{name} = {value + k} = {value}", False
    yield f"{x}={value}", f"{x} = {value}.0", True
    yield f"{x} = {k}n", f"{x} = {k + 1}n = {k}n", False
    yield str(value), rf"{x} = {value + k} \quad {x} = {value}", False
    yield f"{x}={value}", rf"{k}{x} = {k * value}", False


def lines(rng: random.Random) -> Made:
    """Straight lines: the same up to a factor; and lines solved for y."""
    a, b, c = rng.randint(1, 9), rng.randint(1, 9), rng.randint(-9, 9)
    k = rng.choice((-3, -1, 2, 5))

    def term(n: int, x: str, first: bool = False) -> str:
        size = "" if abs(n) == 1 and x else str(abs(n))
        return ("-" if n < 0 else "" if first else "+") + (" " if rng.random() < 0.3 and not first else "") + size + x

    def write(line: Any) -> str:
        p, q, r = line
        m = rng.choice((1, k))
        p, q, r = p * m, q * m, r * m
        left = f"{term(p, 'x', True)}{term(q, 'y')}"
        return rng.choice(
            (f"{left} = {r}", f"{left}{term(-r, '')} = 0", f"{r} = {term(q, 'y', True)}{term(p, 'x')}",
             f"{term(p, 'x', True)} = {r}{term(-q, 'y')}")
        )  # fmt: skip

    other = rng.choice(((a, b, c + 1), (a, -b, c), (b + 1, a, c), (a + 1, b, c)))
    yield from _both(rng, (a, b, c), other, write)
    yield write((a, b, c)), str(c), False
    m, n = F(rng.randint(-9, 9) or 2, rng.choice((1, 1, 2, 3))), rng.randint(-9, 9)
    slope = "" if m == 1 else "-" if m == -1 else short(m, rng)
    right = [f"{slope}x{term(n, '') if n else ''}", f"{n} {'+' if m > 0 else '-'} {short(abs(m), rng)}x"]
    yield f"y = {right[0]}", f"y={right[1]}", True
    yield f"y = {right[0]}", right[1], True
    yield f"y = {right[0]}", f"y = {slope}x{term(n + 1, '') if n + 1 else ''}", False
    radius, h, v = rng.randint(2, 9), rng.randint(1, 9), rng.randint(1, 9)
    circle = f"(x-{h})^2 + (y+{v})^2 = {radius**2}"
    yield circle, f"x^2 - {2 * h}x + y^2 + {2 * v}y = {radius**2 - h**2 - v**2}", True
    yield circle, f"(x-{h})^2 + (y+{v})^2 = {radius**2 + 1}", False
    yield circle, str(radius**2), False


def bases(rng: random.Random) -> Made:
    base = rng.choice((2, 3, 5, 7, 8, 16))
    value = rng.randint(base, 4000)
    digits, other = _in_base(value, base), _in_base(value + rng.choice((1, base)), base)
    words = {2: "two", 3: "three", 5: "five", 7: "seven", 8: "eight", 16: "sixteen"}

    def write(text: str) -> str:
        sub = rng.choice((f"_{{{base}}}", rf"_{{\text{{{words[base]}}}}}", f"_{base}" if base < 10 else f"_{{{base}}}",
                          rf"_{{\mathrm{{{words[base]}}}}}"))  # fmt: skip
        text = text.lower() if base == 16 and rng.random() < 0.5 else text
        return rng.choice((text + sub, text + " " + sub if not sub[1:2].isdigit() else text + sub, f"({text}){sub}"))

    minus = rng.choice(("", "-"))
    plain = minus + digits if digits.isdigit() else f"{minus}{value}"
    yield minus + write(digits), minus + write(digits), True
    yield minus + write(digits), minus + write(other), False
    yield plain, minus + write(digits), False
    yield minus + write(digits), plain, False
    yield f"{minus}{value}", minus + write(digits), False
    yield plain, f"x = {minus}{write(digits)}", False
    yield minus + write(digits), f"x = {minus}{write(digits)}", True
    if digits.isdigit():
        yield plain, rf"\frac{{{minus}{write(digits)}}}{{1}}", False
        yield plain, f"+{write(digits)}", False
        yield f"{plain}.1", f"{minus}{digits}.1_{{{base}}}", False
        yield f"{digits}_{{{base}}}", f"{digits}_{{{base + 1}}}", False


def _in_base(value: int, base: int) -> str:
    digits = ""
    while value:
        value, rest = divmod(value, base)
        digits = "0123456789ABCDEF"[rest] + digits
    return digits


# Surds and the like: a value is a dict from a basis element to its rational coefficient.


def _surd(value: dict[int, F], rng: random.Random) -> str:
    """a + b sqrt(c), in any order, with squares in or out of the root."""
    parts = []
    for root, factor in sorted(value.items(), key=lambda _: rng.random()):
        if root == 1:
            parts.append(short(factor, rng))
            continue
        k = rng.choice((1, 1, 2, 3)) if (factor.numerator % 6 == 0) else 1
        inside, outside = root * k * k, factor / k
        command = rng.choice((rf"\sqrt{{{inside}}}", rf"\sqrt {{{inside}}}", f"√{inside}"))
        size = abs(outside)
        text = (
            command
            if size == 1
            else rf"{size.numerator}{command}"
            if size.denominator == 1
            else (rf"\frac{{{'' if size.numerator == 1 else size.numerator}{command}}}{{{size.denominator}}}")
        )
        parts.append(("-" if outside < 0 else "") + text)
    return " + ".join(parts).replace("+ -", rng.choice(("- ", "-"))) if parts else "0"


def surds(rng: random.Random) -> Made:
    root = rng.choice((2, 3, 5, 6, 7, 10, 11))
    value = {root: F(rng.choice((-1, 1)) * rng.randint(1, 12), rng.choice((1, 1, 2, 3)))}
    if rng.random() < 0.6:
        value[1] = F(rng.randint(-9, 9) or 4, rng.choice((1, 1, 2)))
    other = dict(value)
    changed = rng.choice(list(other))
    other[changed] = -other[changed] if rng.random() < 0.5 else other[changed] + 1
    other = {key: factor for key, factor in other.items() if factor} or {1: F(77)}
    yield from _both(rng, value, other, lambda v: _surd(v, rng))
    p, q = rng.randint(1, 9), rng.choice((2, 3, 5, 7))
    yield rf"\frac{{{p}}}{{\sqrt{{{q}}}}}", rf"\frac{{{p}\sqrt{{{q}}}}}{{{q}}}", True
    yield rf"\frac{{{p}}}{{\sqrt{{{q}}}}}", rf"\frac{{{p}\sqrt{{{q}}}}}{{{q + 1}}}", False
    n, r = rng.randint(2, 5), rng.choice((3, 4, 5))
    yield str(n), rf"\sqrt[{r}]{{{n**r}}}", True
    yield str(n), rf"\sqrt[{r}]{{{n**r + 1}}}", False
    yield rf"{n}\sqrt[3]{{{q}}}", rf"\sqrt[3]{{{n**3 * q}}}", True


def complexes(rng: random.Random) -> Made:
    value = (F(rng.randint(-9, 9)), F(rng.choice((-1, 1)) * rng.randint(1, 9), rng.choice((1, 1, 2))))
    a, b = value
    other = rng.choice(((a, -b), (a + 1, b), (b, a), (-a or F(3), b)))

    def write(v: Any) -> str:
        real, imaginary = v
        gap = rng.choice(("", " "))
        size = "" if abs(imaginary) == 1 else short(abs(imaginary), rng) + gap
        unit = rng.choice(("i", "i", r"\mathrm{i}")) if gap == "" else "i"
        tail = f"{size}{unit}" if imaginary else "0"
        if not real:
            return ("-" if imaginary < 0 else "") + tail
        sign = "-" if imaginary < 0 else "+"
        if rng.random() < 0.3:
            return f"{'-' if imaginary < 0 else ''}{tail} {'-' if real < 0 else '+'} {abs(real)}"
        return f"{real}{gap}{sign}{gap}{tail}"

    yield from _both(rng, value, other, write)
    n, k = rng.randint(2, 41), rng.randint(2, 9)
    powers = ("1", "i", "-1", "-i")
    yield powers[n % 4], f"i^{{{n}}}", True
    yield powers[(n + 1) % 4], f"i^{{{n}}}", False
    yield {"1": f"{k}", "i": f"{k}i", "-1": f"-{k}", "-i": f"-{k}i"}[powers[n % 4]], f"{k}i^{{{n}}}", True
    quarter = rng.randint(1, 7)
    yield powers[quarter % 4], rf"e^{{{quarter}\pi i/2}}", True
    yield powers[(quarter + 2) % 4], rf"e^{{\frac{{{quarter} i\pi}}{{2}}}}", False
    yield f"{value[0] ** 2 + k * k}", rf"({value[0]}+{k}i)({value[0]}-{k}i)", True
    yield "-1", rng.choice((r"e^{i\pi}", r"e^{\pi i}", r"\mathrm{e}^{i \pi}", r"\cos\pi + i\sin\pi")), True


def pis(rng: random.Random) -> Made:
    value = rational(rng, 30)

    def write(v: Any) -> str:
        sign, p, q = "-" if v < 0 else "", abs(v.numerator), v.denominator
        n = "" if p == 1 else str(p)
        if q == 1:
            return sign + rng.choice((rf"{n}\pi", rf"{n} \pi", f"{n}π"))
        return sign + rng.choice((rf"\frac{{{n}\pi}}{{{q}}}", rf"\frac{{{p}}}{{{q}}}\pi", rf"\dfrac{{{n} \pi}}{{{q}}}",
                                  rf"{n}\pi/{q}", rf"\frac{{{p}\cdot\pi}}{{{q}}}"))  # fmt: skip

    yield from _both(rng, value, near(value, rng), write)
    yield write(value), _decimal(F(round(value * F(314, 100) * 100), 100)), False
    yield write(value), short(value, rng), False


def _poly(value: tuple[F, ...], rng: random.Random, x: str = "x", ordered: bool = False) -> str:
    terms = [(power, factor) for power, factor in enumerate(value) if factor]
    terms.sort(key=lambda t: -t[0] if ordered else rng.random())
    text = ""
    for power, factor in terms:
        name = "" if power == 0 else x if power == 1 else rng.choice((f"{x}^{power}", f"{x}^{{{power}}}"))
        size = "" if abs(factor) == 1 and name else short(abs(factor), rng)
        gap = rng.choice(("", " "))
        text += ("-" if factor < 0 else "" if not text else "+") + gap * bool(text) + size + name + gap
    return text.strip() or "0"


def _times(a: tuple[F, ...], b: tuple[F, ...]) -> tuple[F, ...]:
    found = [F(0)] * (len(a) + len(b) - 1)
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            found[i + j] += p * q
    return tuple(found)


def polynomials(rng: random.Random) -> Made:
    x = rng.choice(("x", "n", "t", "a"))
    roots = [rng.randint(-6, 6) for _ in range(rng.choice((2, 2, 3)))]
    lead = F(rng.choice((1, 1, 2, 3, -1)))
    value: tuple[F, ...] = (lead,)
    for root in roots:
        value = _times(value, (F(-root), F(1)))
    other = list(value)
    place = rng.randrange(len(other))
    other[place] += rng.choice((-1, 1))
    if not any(other[1:]):
        return
    factors = [f"({x}{'-' if root > 0 else '+'}{abs(root)})" if root else x for root in roots]
    rng.shuffle(factors)
    head = {1: "", -1: "-"}.get(int(lead), str(lead))
    yield _poly(value, rng, x, True), _poly(value, rng, x), True
    yield _poly(value, rng, x, True), head + "".join(factors), True
    yield head + "".join(factors), _poly(value, rng, x), True
    yield head + "".join(factors), _poly(tuple(other), rng, x), False
    yield _poly(value, rng, x), _poly(value, rng, "y"), False
    yield _poly(value, rng, x), f"f({x}) = {_poly(value, rng, x)}", True
    k, m = rng.randint(2, 9), rng.randint(2, 9)
    yield f"({k}{x}+{m}y)^2", f"{k * k}{x}^2 + {2 * k * m}{x}y + {m * m}y^2", True
    yield f"({k}{x}+{m}y)^2", f"{k * k}{x}^2 + {m * m}y^2", False
    yield rf"\frac{{{k}}}{{{x}+{m}}}", rf"\frac{{{k}{x}}}{{{x}^2+{m}{x}}}", True
    yield rf"\frac{{{k}}}{{{x}+{m}}}", rf"\frac{{{k}}}{{{x}-{m}}}", False
    yield rf"\frac{{1}}{{{k}}}{x}", rf"\frac{{{x}}}{{{k}}}", True


def _element(rng: random.Random) -> F:
    return F(rng.randint(-12, 12), rng.choice((1, 1, 1, 2, 3)))


def tuples(rng: random.Random) -> Made:
    size = rng.choice((2, 2, 3, 4))
    value = tuple(_element(rng) for _ in range(size))
    first, *rest = value
    other = rng.choice((value[::-1], (first + 1, *rest), (-first, *rest), (*value, F(1)), (*rest, first)))

    def write(v: Any) -> str:
        gap = rng.choice((",", ", ", " , ", r",\,", r",\ "))
        inner = gap.join(short(e, rng) for e in v)
        return rng.choice((f"({inner})", rf"\left({inner}\right)", rf"\left( {inner} \right)", rf"\big({inner}\big)"))

    yield from _both(rng, value, other, write)
    names = "(x,y)" if size == 2 else "(x, y, z)" if size == 3 else "(a,b,c,d)"
    yield write(value), f"{names} = {write(value)}", True
    yield write(value), ", ".join(short(e, rng) for e in value), False
    angle = rng.choice((r"\langle {} \rangle", r"\left\langle {} \right\rangle", r"\langle{}\rangle"))
    inner, wrong = (", ".join(short(e, rng) for e in v) for v in (value, other))
    yield write(value), angle.replace("{}", inner), True
    yield angle.replace("{}", inner), angle.replace("{}", wrong), value == other


def sets(rng: random.Random) -> Made:
    value = frozenset(_element(rng) for _ in range(rng.choice((2, 3, 3, 4))))
    if len(value) < 2:
        return
    changed = rng.choice(sorted(value))
    other = rng.choice((value - {changed}, value | {F(77)}, (value - {changed}) | {changed + F(1, 7)}))

    def write(v: Any) -> str:
        items = [short(e, rng) for e in sorted(v, key=lambda _: rng.random())]
        inner = rng.choice((", ", ",", " , ")).join(items) if max(map(len, items)) < 3 else ", ".join(items)
        joined = ", ".join(items[:-1]) + rng.choice((" and ", r"\text{ and }", " or ", r" \text{ or } ")) + items[-1]
        return rng.choice((rf"\{{{inner}\}}", rf"\left\{{{inner}\right\}}", rf"\left\{{ {inner} \right\}}", inner,
                           joined if len(items) > 1 else inner))  # fmt: skip

    yield from _both(rng, value, other, write)
    one = rng.choice(sorted(value))
    yield short(one, rng), write(value), False
    x = rng.choice("xnt")
    yield write(value), ", ".join(f"{x} = {short(e, rng)}" for e in sorted(value)), True
    a, b = F(rng.randint(1, 9)), rng.choice((2, 3, 5))
    yield f"{a}, -{a}", rng.choice((r"\pm {}", r"\pm{}", "±{}", r"x = \pm {}")).format(a), True
    yield f"{a}, -{a + 1}", rf"\pm {a}", False
    yield rf"{a}+\sqrt{{{b}}}, {a}-\sqrt{{{b}}}", rf"{a} \pm \sqrt{{{b}}}", True
    yield rf"{a} \pm \sqrt{{{b}}}", rf"{a} \pm \sqrt{{{b + 3}}}", False
    yield str(a), rf"\pm {a}", False


def intervals(rng: random.Random) -> Made:
    low, high = sorted(rng.sample(range(-20, 20), 2))
    ends: tuple[object, ...] = rng.choice(((low, high), (None, high), (low, None)))
    brackets = ("(" if ends[0] is None else rng.choice("(["), ")" if ends[1] is None else rng.choice(")]"))

    def write(v: Any) -> str:
        (left, (a, b), right) = v
        inf = rng.choice((r"\infty", "∞"))
        start, end = (f"-{inf}" if a is None else str(a)), (inf if b is None else str(b))
        gap = rng.choice((",", ", "))
        return rng.choice((f"{left}{start}{gap}{end}{right}", rf"\left{left}{start}{gap}{end}\right{right}"))

    value = (brackets[0], ends, brackets[1])
    flipped = (
        ("[" if brackets[0] == "(" else "(", ends, brackets[1])
        if ends[0] is not None
        else ("(", (None, high + 1), brackets[1])
    )
    yield from _both(rng, value, flipped, write)
    gap = rng.randint(1, 6)
    pair = [("(", (None, low), rng.choice(")]")), (rng.choice("(["), (low + gap, None), ")")]
    wrong = [pair[0], (pair[1][0], (low + gap + 1, None), ")")]

    def union(v: list[Any]) -> str:
        parts = [write(piece) for piece in sorted(v, key=lambda _: rng.random())]
        return rng.choice((r"\cup", r" \cup ", " \u222a ")).join(parts)

    yield union(pair), union(pair), True
    yield union(pair), union(wrong), False
    yield union(pair), write(pair[0]), False
    yield write(value), rf"x \in {write(value)}", True


def inequalities(rng: random.Random) -> Made:
    x, a = rng.choice("xnt"), rng.randint(-20, 20)
    b = a + rng.randint(1, 9)
    strict, other = rng.choice((("<", r"\le"), (r"\le", "<")))

    def spell(sign: str) -> str:
        return rng.choice(("<", r"\lt ") if sign == "<" else (r"\le ", r"\leq ", r"\leqslant ", "≤", "<="))

    def mirror(sign: str) -> str:
        return rng.choice((">", r"\gt ") if sign == "<" else (r"\ge ", r"\geq ", "≥", ">="))

    yield f"{x} {spell(strict)} {a}", f"{a} {mirror(strict)} {x}", True
    yield f"{x} {spell(strict)} {a}", f"{x}{spell(strict)}{a}", True
    yield f"{x} {spell(strict)} {a}", f"{x} {spell(other)} {a}", False
    yield f"{x} {spell(strict)} {a}", f"{x} {mirror(strict)} {a}", False
    yield f"{x} {spell(strict)} {a}", f"{x} {spell(strict)} {a + 1}", False
    yield f"{x} {spell(strict)} {a}", str(a), False
    yield f"{a} {spell('<')} {x} {spell(strict)} {b}", f"{b} {mirror(strict)} {x} {mirror('<')} {a}", True
    yield f"{a} {spell('<')} {x} {spell(strict)} {b}", f"{a} {spell('<')} {x} {spell(other)} {b}", False
    yield f"{x} < {a} \\text{{ or }} {x} > {b}", f"{x} > {b} \\text{{ or }} {x} < {a}", True
    yield f"{x} < {a} \\text{{ or }} {x} > {b}", f"{x} > {a} \\text{{ and }} {x} < {b}", False


def matrices(rng: random.Random) -> Made:
    rows, columns = rng.choice(((2, 1), (3, 1), (2, 2), (2, 2), (1, 2), (1, 3), (2, 3), (3, 3)))
    value = tuple(tuple(_element(rng) for _ in range(columns)) for _ in range(rows))
    moved = tuple(zip(*value, strict=True))
    changed = (*value[:-1], (*value[-1][:-1], value[-1][-1] + 1))
    other = rng.choice((value[::-1], moved, tuple(row[::-1] for row in value), changed))

    def write(v: Any) -> str:
        gap, line = rng.choice(("&", " & ")), rng.choice((r"\\", r" \\ ", r"\\ ", "\\\\\n", r"\\[2pt]"))
        body = line.join(gap.join(short(e, rng) for e in row) for row in v)
        width = len(v[0])
        return rng.choice(
            (rf"\begin{{pmatrix}}{body}\end{{pmatrix}}", rf"\begin{{pmatrix}} {body} \end{{pmatrix}}",
             rf"\begin{{bmatrix}}{body}\end{{bmatrix}}",
             rf"\left(\begin{{array}}{{{'c' * width}}}{body}\end{{array}}\right)",
             rf"\left[\begin{{array}}{{{'r' * width}}} {body} \\ \end{{array}}\right]",
             rf"\left[\begin{{matrix}}{body}\end{{matrix}}\right]",
             rf"\begin{{bmatrix}} {body} \end{{bmatrix}}",
             rf"\left( \begin{{smallmatrix}} {body} \end{{smallmatrix}} \right)")
        )  # fmt: skip

    yield from _both(rng, value, other, write)
    yield write(value), rf"A = {write(value)}", True
    k = rng.randint(2, 5)
    scaled = tuple(tuple(e * k for e in row) for row in value)
    yield write(scaled), f"{k}{write(value)}", True
    if value != scaled:
        yield write(value), f"{k}{write(value)}", False
    if columns == 1:
        yield write(value), f"({', '.join(short(row[0], rng) for row in value)})", False


_SINES = {0: "0", 30: r"\frac{1}{2}", 45: r"\frac{\sqrt{2}}{2}", 60: r"\frac{\sqrt{3}}{2}", 90: "1"}
_HALVES = {r"\frac{1}{2}": ("0.5", r"\tfrac12", "1/2"), "0": ("0.0",), "1": ("1.0", r"\frac{2}{2}"),
           r"\frac{\sqrt{2}}{2}": (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}2"),
           r"\frac{\sqrt{3}}{2}": (r"\frac{\sqrt3}2",)}  # fmt: skip


def trigonometry(rng: random.Random) -> Made:
    angle = rng.choice(list(_SINES))
    wrong = rng.choice([a for a in _SINES if a != angle])
    turn = F(angle, 180)
    above = "" if turn.numerator == 1 else turn.numerator
    radians = "0" if angle == 0 else rf"\frac{{{above}\pi}}{{{turn.denominator}}}"
    forms = [rf"\sin {angle}^\circ", rf"\sin({angle}^{{\circ}})", rf"\sin {angle}°", rf"\cos {90 - angle}^\circ",
             rf"\sin({180 - angle}^\circ)", rf"\sin\left({radians}\right)", rf"\sin {radians}",
             rf"\sin{{{angle}^\circ}}",
             rf"\cos({angle - 90}^\circ)"]  # fmt: skip
    value = _SINES[angle]
    yield value, rng.choice(forms), True
    yield rng.choice(_HALVES[value]), rng.choice(forms), True
    yield rng.choice(forms), value, True
    yield _SINES[wrong], rng.choice(forms), False
    n = rng.randint(2, 9)
    yield r"\frac{\pi}{4}", rng.choice((r"\arctan 1", r"\tan^{-1} 1", r"\tan^{-1}(1)", r"\arctan(1)")), True
    yield rf"\sin^2 {n}x", rf"1 - \cos^2 {n}x", True
    yield rf"\sin {2 * n}x", rf"2\sin {n}x\cos {n}x", True
    yield rf"\sin {2 * n}x", rf"2\sin {n}x", False
    signs = ("°", r"^{\circ}", r"\text{ degrees}", " degrees", "", r"^\circ")
    yield rf"{angle}^\circ", f"{angle}{rng.choice(signs)}", True
    yield rf"{angle}^\circ", rf"{wrong}^\circ", False


def logarithms(rng: random.Random) -> Made:
    base, power = rng.choice((2, 3, 5, 10)), rng.randint(2, 6)
    forms = [rf"\log_{{{base}}}({base**power})", rf"\log_{{{base}}} {base**power}"]
    forms.append(rf"\log_{base} {base**power}" if base < 10 else rf"\lg {base**power}")
    yield str(power), rng.choice(forms), True
    yield str(power), rf"\log_{{{base}}} {base ** (power + 1)}", False
    k, m = rng.randint(2, 9), rng.randint(2, 9)
    yield rf"\ln {k * m}", rf"\ln {k} + \ln {m}", True
    yield rf"\ln {k}", rf"\ln {k + m}", False
    yield rf"{power}\ln {k}", rf"\ln {k**power}", True
    yield str(k), rf"e^{{\ln {k}}}", True
    yield str(F(1, base**power)), f"{base}^{{-{power}}}", True
    yield f"{base}^{{{power + m}}}", rf"{base}^{{{power}}} \cdot {base}^{{{m}}}", True
    yield f"{base}^{{{power + m}}}", f"{base}^{{{power * m + 100}}}", False
    yield f"e^{{{k}}}", f"e^{k}", True
    yield f"e^{{{k}}}", f"e^{{{k + 1}}}", False
    n = rng.randint(1000, 3000)
    yield f"2^{{{n}}} - 1", f"-1 + 2^{{{n}}}", True
    yield f"2^{{{n}}} - 1", f"2^{{{n + 1}}} - 1", False
    yield f"{k}^{{{k}^{{{n}}}}}", f"{k}^{{{k}^{{{n + 1}}}}}", False
    yield f"{k}^{{{k}^{{{n}}}}} + 1", f"1 + {k}^{{{k}^{{{n}}}}}", True


def counting(rng: random.Random) -> Made:
    n = rng.randint(4, 12)
    k = rng.randint(2, n - 2)
    command = rng.choice((r"\binom", r"\dbinom", r"\tbinom"))
    yield str(comb(n, k)), rf"{command}{{{n}}}{{{k}}}", True
    yield rf"\binom{{{n}}}{{{k}}}", rf"{command}{{{n}}}{{{n - k}}}", True
    yield rf"\binom{{{n}}}{{{k}}}", rf"{command}{{{n + 1}}}{{{k}}}", False
    yield str(comb(n, k)), rf"{{{n} \choose {k}}}", True
    yield str(factorial(n)), f"{n}!", True
    yield str(factorial(n)), f"{n + 1}!", False
    yield f"{n}!", rf"{n} \cdot {n - 1}!", True
    yield rf"\frac{{{n}!}}{{{k}!}}", str(factorial(n) // factorial(k)), True
    a, b = rng.randint(4, 60), rng.randint(4, 60)
    yield str(gcd(a, b)), rf"\gcd({a}, {b})", True
    yield str(lcm(a, b)), rf"\operatorname{{lcm}}({a},{b})", True
    yield str(gcd(a, b) + 1), rf"\gcd({a},{b})", False
    m = rng.randint(3, 13)
    form = rng.choice((r"{} \mod {}", r"{} \bmod {}", r"{}\mod {}", r"{} \bmod{{{}}}")).format(a, m)
    yield str(a % m), form, True
    yield str(a % m + 1), form, False
    yield rf"{a % m} \pmod{{{m}}}", rf"x \equiv {a % m} \pmod{{{m}}}", True
    yield rf"{a % m} \pmod{{{m}}}", rf"{a % m} \pmod{{{m + 1}}}", False
    v = F(rng.randint(-99, 99), 10)
    floor = v.numerator // v.denominator
    form = rng.choice((r"\lfloor {} \rfloor", r"\left\lfloor {} \right\rfloor", r"\lfloor{}\rfloor"))
    yield str(floor), form.format(_decimal(v)), True
    yield str(-((-v.numerator) // v.denominator)), rf"\lceil {_decimal(v)} \rceil", True
    yield str(floor + 1), rf"\lfloor {_decimal(v)} \rfloor", False
    yield _decimal(abs(v)), rng.choice((r"|{}|", r"\left|{}\right|", r"\lvert {} \rvert")).format(_decimal(v)), True
    yield _decimal(abs(v) + 1), f"|{_decimal(v)}|", False
    p, q = rng.sample(range(2, 12), 2)
    step = rng.choice((r"\lfloor n/{} \rfloor", r"\lceil \frac{{n}}{{{}}} \rceil", r"n \bmod {}"))
    yield f"n + {step.format(p)}", f"{step.format(p)} + n", True
    yield f"n + {step.format(p)}", f"{step.format(q)} + n", False
    top = rng.randint(3, 12)
    yield str(sum(i * i for i in range(1, top + 1))), rf"\sum_{{k=1}}^{{{top}}} k^2", True
    yield str(sum(range(1, top + 1)) + 1), rf"\sum_{{i=1}}^{{{top}}} i", False


def ratios(rng: random.Random) -> Made:
    a, b, c, k = (rng.randint(1, 19) for _ in range(4))
    gap = rng.choice((":", " : "))
    if gcd(a, b) == 1 and a != b:
        yield f"{a}:{b}", f"{a}{gap}{b}", True
        yield f"{a}:{b}", f"{a * k}{gap}{b * k}", True
        yield f"{a}:{b}", f"{b}{gap}{a}", False
        yield f"{a}:{b}", f"{a + 1}{gap}{b}", False
        yield f"{a}:{b}:{c}", f"{a * k}{gap}{b * k}{gap}{c * k}", True
        yield f"{a}:{b}:{c}", f"{a}{gap}{b}{gap}{c + 1}", False


_WORDS = (
    "east", "west", "north", "south", "yes", "no", "true", "false", "odd", "even", "no solution", "infinitely many",
    "Monday", "Tuesday", "June", "July", "red", "blue", "parabola", "hyperbola", "ellipse", "circle", "acute", "obtuse",
    "Alice", "Bob", "increasing", "decreasing", "neither", "isosceles triangle", "right angle", "does not exist",
)  # fmt: skip


def words(rng: random.Random) -> Made:
    one, two = rng.sample(_WORDS, 2)

    def write(text: str) -> str:
        text = rng.choice((text, text.title(), text.lower(), text.upper()))
        roman = rf"\mathrm{{{text}}}" if " " not in text else text
        boxed = (rf"\text{{{text}}}", rf"\text{{ {text} }}", rf"\textbf{{{text}}}", rf"\mbox{{{text}}}")
        return rng.choice((text, f"{text}.", roman, *boxed))

    yield write(one), write(one), True
    yield write(one), write(two), False
    scrambled = "".join(rng.sample(one, len(one)))
    if scrambled != one and len(one) > 3 and " " not in one:
        yield write(one), rf"\text{{{scrambled}}}", False
    yield str(rng.randint(1, 30)), write(one), False
    yield write(one), rf"\text{{not {one}}}", False
    yield write(one), rf"\text{{{one} or {two}}}", False
    month, day = rng.choice(("June", "July", "March", "May")), rng.randint(1, 28)
    yield f"{month} {day}", rf"\text{{{month} {day}}}", True
    yield f"{month} {day}", rf"\text{{{month} {day + 1}}}", False
    letter = rng.choice("ABCDEFGH")
    yield letter, rng.choice((r"\text{{{}}}", "{}", r"\mathrm{{{}}}", r"\text{{({})}}", "({})")).format(letter), True
    yield letter, letter.lower(), False


_BOTH = (
    "{}, {}", "{} or {}", r"{} \text{{ or }} {}", "{}; {}", "{} and {}", r"\text{{{} or {}}}",
    r"{}\text{{, not }}{}", "{} {}",
    "{}|{}", r"{} \to {}", "{} ({})?", r"{} \text{{ (or }} {})", "{}..{}", r"{} \lor {}", r"\{{{}, {}\}}",
    "({}, {})", "[{}, {}]",
    r"{} \text{{ or maybe }} {}", "{} = {}", r"{} \ne {}", "{} oder {}", "{} ou {}", "{} o {}", "{} vs {}",
    r"{} \quad {}",
    "{}\\\\{}", "{} & {}",
)  # fmt: skip


def hedges(rng: random.Random) -> Made:
    """Several values where one was asked."""
    a, b = rng.sample(range(2, 60), 2)
    text = rng.choice(_BOTH).format(a, b)
    yield str(a), text, False
    yield str(b), text, False
    yield str(a), rf"{a} \text{{ or }} {b} \text{{ or }} {a + b}", False
    yield f"{a}, {b}", str(a), False


_CLASSES: tuple[tuple[Callable[[random.Random], Made], int], ...] = (
    (rationals, 560), (unbraced, 240), (periodic, 280), (large, 240), (scientific, 160), (percents, 200), (units, 420),
    (remarks, 420), (equations, 660), (lines, 400), (bases, 420), (surds, 380), (complexes, 420), (pis, 220),
    (polynomials, 440), (tuples, 360), (sets, 420), (intervals, 320), (inequalities, 340), (matrices, 380),
    (trigonometry, 300), (logarithms, 340), (counting, 500), (ratios, 160), (words, 300), (hedges, 240),
)  # fmt: skip


def math_pairs() -> list[Pair]:
    """All pairs for the `math` grader, without repetitions."""
    found: dict[tuple[str, str], Pair] = {}
    for make, wanted in _CLASSES:
        rng, begun = random.Random(make.__name__), len(found)
        for _ in range(40 * wanted):
            for reference, answer, right in make(rng):
                if len(found) - begun < wanted and not (reference == answer and rng.random() < 0.8):
                    found.setdefault((reference, answer), Pair(make.__name__, reference, answer, right))
            if len(found) - begun >= wanted:
                break
    return list(found.values())


# -- choice ------------------------------------------------------------------------------------------------------------

_LETTERS = "ABCDEFGHIJ"
_TEXTS = (
    "15 cm", "12", "-5", "the red car", "A triangle", "None of the above", "Cannot be determined", r"$\frac{3}{4}$",
    "0.5",
    "x > 3", "mitochondria", "cats and dogs", "Yes", "No", "True", "False", "increases", "It does not change", "3:4",
    "$x^2 + y^2$", "Paris, France", "Not enough information", "1, 2 and 3", r"\frac{1}{2}", "the blue one",
    "60 degrees",
    "an equilateral triangle", "The second picture", "2x + 3", "I and II only", "photosynthesis", "H_2O", "north-east",
)  # fmt: skip
_LABELS = (
    "{}", "({})", "[{}]", "{}.", "{})", "{}:", r"\text{{{}}}", r"\textbf{{{}}}", r"\mathrm{{{}}}", r"\text{{({})}}",
    "**{}**",
    "${}$", r"\mathbf{{({})}}", "Option {}", "The answer is {}", "Answer: ({})", "The correct option is {}.", " {} ",
    r"\textbf{{({})}}", "choice {}", r"\boxed{{{}}}", r"\left({}\right)", r"\text{{Option {}}}", r"\textit{{{}}}.",
)  # fmt: skip
_WITH_TEXT = (
    "({}) {}", "{}. {}", "{}) {}", "{}: {}", r"\text{{{}. }} {}", r"\textbf{{({})}}\ {}", "[{}] {}", r"({})\quad {}",
    r"\mathrm{{({})}} {}", "**{}.** {}", r"\textbf{{{}.}}\,{}", "Option {}: {}", "The answer is ({}) {}",
)  # fmt: skip
_HEDGED = (
    "{0} or {1}", "({0}) or {1}", "{0}. or {1}", "{0}) or {1}", "{0}: or maybe {1}", "({0}) or ({1})", "{0}, or {1}",
    r"{0} \text{{ or }} {1}", r"({0})\text{{ or }}({1})", r"{0} \lor {1}", "either {0} or {1}", "{0} oder {1}",
    "({0}) oder ({1})", "{0}. ou {1}", "{0} o {1}", "({0}) o ({1})", "{0} или {1}", "{0} 或 {1}", "{0}或{1}",
    "{0} または {1}",
    "{0}/{1}", "({0})/({1})", "{0} | {1}", "{0}.{1}", "{0}..{1}", "{0}: {1}", "{0}) {1}", "{0} -> {1}", r"{0} \to {1}",
    "{0} → {1}", "({0}) → ({1})", "{0}; or {1}", "{0}? {1}?", "{0} vs {1}", "{0} maybe {1}", "{0}. maybe {1}",
    "{0} (or {1})",
    "({0}) {2}, or ({1})", "({0}) {2} or ({1}) {3}", "{0}. {2}; {1}. {3}", "{0}: {2}, {1}: {3}", "{0}, perhaps {1}",
    "{0}. {2} or {1}", "{0}) {2}, possibly {1}", "[{0}] or [{1}]", "{0} else {1}", "{0} and/or {1}",
    "between {0} and {1} maybe",
    "{0} eller {1}", "{0} lub {1}", "({0}) veya ({1})", "{0}) of {1}", "{0}, if not then {1}", "{0}. Otherwise {1}",
)  # fmt: skip
_CORRECTED = (
    "({0}) is incorrect, {1} is correct", "{0}. wrong, it is {1}", "{0}. no, {1}", "{0} no wait {1}",
    "{0}: no wait, {1}",
    "({0}). Actually {1}", "{0}) sorry, {1}", "{0}. Make that {1}", "{0}. I meant {1}", "{0}. Correction: {1}",
    "{0}. Hmm, {1}",
    "({0}) is wrong. ({1})", "not {0} but {1}", "{0}. {2} is wrong, so {1}", "{0} is false, {1} is true",
    "{0}. then {1}",
    "({0}) {2}. No: ({1})", "{0}: scratch that, {1}", "{0}. On second thought, {1}", "({0}) seems wrong; {1}",
    "{0}. -> {1}",
    r"\cancel{{{0}}} {1}", r"\text{{{0}. }}\text{{or {1}}}", "{0}. falsch, {1}", "{0}. Non, {1}",
    "{0}: incorrecto, {1}",
    "{0}. {1} is better", "({0}) rather ({1})", "{0}. Instead {1}", "{0}. but {1} fits", "~~{0}~~ ({1})",
    "{0}. {1} it is",
    "{0}. Oops, {1}", "{0}. changed to {1}", "({0}) was my guess, final: {1}", "{0}. nope, {1}.", "{0} X, {1} OK",
)  # fmt: skip
_DENIED = (
    "not {0}", "{0}. incorrect", "({0}) is incorrect", "{0}. wrong", "({0}) is wrong", "({0}) not", "{0} is not right",
    "{0}. not sure", "({0}) maybe", "{0}. I guess", "{0}. perhaps", "{0}?", "{0}. ?", "({0})?", "{0} (not sure)",
    "never {0}",
    "{0}: probably", "({0}) could be right", "({0}) isn't it", "all but {0}", "{0} or none", "{0} or another",
    "{0} is false",
    r"\neg {0}", r"\cancel{{{0}}}", "neither {0}", "anything but {0}", "unsure, {0}", "({0}) is not correct",
    "{0}: wrong answer",
    "maybe {0}", "probably ({0})", "I am unsure about {0}", "({0}) seems wrong", "{0}. nope", "({0}) is unlikely",
    "{0}) possibly",
)  # fmt: skip


def _lettered(rng: random.Random) -> Iterator[tuple[str, str, str, bool]]:
    one, two = rng.sample(_LETTERS, 2)
    text, other = rng.sample(_TEXTS, 2)
    label, worded = rng.choice(_LABELS), rng.choice(_WITH_TEXT)
    case = one.lower() if rng.random() < 0.1 and "{}" in (label, f"({label[1:-1]})") else one
    yield "labels", one, label.format(case), True
    yield "labels", one, label.format(two), False
    yield "labels", f"({one})", label.format(one), True
    yield "labels with text", one, worded.format(one, text), True
    yield "labels with text", f"{one}. {text}", worded.format(one, other), True
    yield "labels with text", one, worded.format(two, text), False
    hedge = rng.choice(_HEDGED).format(one, two, text, other)
    yield "choice hedges", one, hedge, False
    yield "choice hedges", two, hedge, False
    corrected = rng.choice(_CORRECTED).format(one, two, text, other)
    yield "choice corrections", one, corrected, False
    yield "choice corrections", two, corrected, False
    yield "choice denials", one, rng.choice(_DENIED).format(one), False
    yield "choice texts", one, text, False
    picked = sorted(rng.sample(_LETTERS, rng.choice((2, 2, 3))))
    joined = rng.choice((", ", ",", " and ", "; ", " & ", r",\ ", " "))
    shown = [rng.choice(("{}", "({})" if joined != " " else "{}")).format(x) for x in rng.sample(picked, len(picked))]
    yield "several letters", ", ".join(picked), joined.join(shown), True
    yield "several letters", ", ".join(picked), "".join(picked), True
    yield "several letters", ", ".join(picked), joined.join(shown[:-1]), False
    yield "several letters", picked[0], joined.join(shown), False


def choice_pairs(wanted: int = 2400) -> list[Pair]:
    """All pairs for the `choice` grader, without repetitions."""
    rng = random.Random("choice")
    found: dict[tuple[str, str], Pair] = {}
    while len(found) < wanted:
        for kind, reference, answer, right in _lettered(rng):
            if reference != answer or rng.random() < 0.2:
                found.setdefault((reference, answer), Pair(kind, reference, answer, right))
    return list(found.values())
