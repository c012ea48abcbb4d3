r"""The units that may follow a value: a closed list, with powers, products and quotients of its members.

A unit may be left out of an answer, but two different units are wrong, and units are not converted. Words that are in
no list are no units: "3 maybe" is not 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.graders.extract import squeeze

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.graders.mathematics.notation import Token

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
"""Spellings of common units, with the one each is compared under."""

_MORE = """
dm decimeter decimeters; nm nanometer nanometers; um micrometer micrometers micron microns;
ly lightyear lightyears; acre acres; hectare hectares ha; ton tons tonne tonnes; ug microgram micrograms;
ms millisecond milliseconds; ns nanosecond nanoseconds; us microsecond microseconds; yr yrs; decade decades;
century centuries; gallon gallons gal; quart quarts; pint pints; cup cups; tablespoon tablespoons;
teaspoon teaspoons; dL dl; cc; N newton newtons; kN; J joule joules; kJ kilojoule kilojoules; MJ;
cal calorie calories; kcal kilocalorie kilocalories; W watt watts; kW kilowatt kilowatts;
MW megawatt megawatts; kWh; Wh; hp horsepower; Pa pascal pascals; kPa; MPa; atm atmosphere atmospheres;
bar bars; mmHg; K kelvin kelvins; C coulomb coulombs; V volt volts; kV; mV; A ampere amperes amp amps; mA;
F farad farads; H henry henries; T tesla teslas; Wb weber webers; Ohm ohm ohms; S siemens; Hz hertz; kHz; MHz;
GHz; mol mole moles; M; Bq; eV; keV; MeV; GeV; u amu; cd candela; lm lumen lumens; lux; kn knot knots; rpm;
rev revolution revolutions; sr steradian steradians; dB decibel decibels; bit bits; byte bytes; kB; MB; GB;
euro EUR; pound_sterling GBP; penny pennies pence; nickel nickels; dime dimes; rupee rupees Rs; yuan RMB; yen;
fps; way ways; people person persons; student students; child children; boy boys; girl girls; man men;
woman women; item items; object objects; apple apples; orange oranges; egg eggs; book books; page pages;
ball balls; marble marbles; card cards; coin coins; ticket tickets; car cars; tree trees; flower flowers;
cookie cookies; candy candies; pencil pencils; toy toys; game games; point points; side sides; edge edges;
face faces; vertex vertices; triangle triangles; square squares; digit digits; solution solutions; root roots;
step steps; word words; letter letters; team teams; member members; worker workers; cow cows; dog dogs;
cat cats; bird birds; box boxes; bag bags; bottle bottles; mark marks; piece pieces; part parts; row rows;
column columns
"""
_NAMES = UNITS | {n: line.split()[0] for line in _MORE.strip().split(";") for n in line.split()}
_SPLIT = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "fps": "ft/s", "cc": "cm^3"}
_SHAPES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_GREEK = {"Omega": "Ohm", "mu": "u", "degree": "deg", "euro": "euro", "pounds": "pound_sterling", "dollar": "dollar"}
_TEMPERATURES = {"C": "°C", "Celsius": "°C", "celsius": "°C", "F": "°F", "Fahrenheit": "°F", "fahrenheit": "°F"}
BARE_LETTERS = frozenset("msghlL")
"""Units of one letter that need no `\\text{}` around them. Each is a variable as well, so both readings count."""

Unit = tuple[tuple[str, int], ...]
"""Each base with its power, sorted: m/s^2 is (("m", 1), ("s", -2))."""


def unit_name(text: str) -> str:
    """One spelling for a unit: "square centimeters", `\\mathrm{cm}^{2}` and "cm^2" are all "cm^2"."""
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


def spelt(unit: object) -> str:
    """A unit as text."""
    assert isinstance(unit, tuple)
    return " ".join(base if power == 1 else f"{base}^{power}" for base, power in unit)


_TEXT = r"\\(?:text|mathrm|mbox|textrm|textit|textbf|operatorname)\s*\{([^{}]*)\}"


def match(found: Sequence[Token], at: int) -> tuple[Unit, int] | None:
    """The unit that begins at a token, as long as it goes on, and where it ends; None if none does."""
    reader = _Reader(found, at)
    return (reader.unit(), reader.at) if reader.run() else None


def degree_sign(found: Sequence[Token], at: int) -> tuple[bool, int] | None:
    r"""Whether `^\circ` at a token is plain and no temperature, and where it ends; None if there is none."""
    reader = _Reader(found, at)
    name = reader.raised()
    return None if name is None else (name == "deg", reader.at)


class _Reader:
    def __init__(self, found: Sequence[Token], at: int) -> None:
        self.found, self.at = found, at
        self.powers: dict[str, int] = {}

    def run(self) -> bool:
        if self._kind() == "%":
            self.at, self.powers = self.at + 1, {"%": 1}
            return True
        if not self._one(1):
            return False
        while True:
            start, sign = self.at, self._connector()
            if not self._one(sign):
                self.at = start
                return True

    def unit(self) -> Unit:
        return tuple(sorted((name, power) for name, power in self.powers.items() if power))

    def _kind(self, ahead: int = 0) -> str:
        return self.found[self.at + ahead].kind if self.at + ahead < len(self.found) else ""

    def _word(self) -> str:
        return self.found[self.at].text if self._kind() in ("word", "text") else ""

    def _connector(self) -> int:
        """Step over what joins two units; -1 for a quotient."""
        if self._kind() == "/" or self._word() == "per":
            self.at += 1
            return -1
        if self._kind() in ("*", "-", ".") or (self._kind() == "cmd" and self.found[self.at].text in ("cdot", "times")):
            self.at += 1
        return 1

    def _one(self, sign: int) -> bool:
        start = self.at
        braced = self._kind() == "{"
        self.at += braced
        shape = _SHAPES.get(self._word().lower(), 0)
        if shape:
            self.at += 1
            self.at += self._kind() == "."
        name = self._name()
        if name is None or (braced and self._kind() != "}"):
            self.at = start
            return False
        self.at += braced
        power = shape or self._power()
        if power == 0:
            self.at = start
            return False
        for base, exponent in _bases(name):
            self.powers[base] = self.powers.get(base, 0) + sign * exponent * power
        return True

    def _name(self) -> str | None:
        if self._kind() == "cmd":
            name = _GREEK.get(self.found[self.at].text)
            if name == "u" and self._kind(1) in ("word", "text"):
                name = f"u{self.found[self.at + 1].text}"
                self.at += name in _NAMES
            if name is None or name == "u" or name not in _NAMES:
                return None
            self.at += 1
            return _NAMES[name]
        if self._kind() == "^":
            return self.raised()
        word = self._word()
        name = _NAMES.get(word) or (_NAMES.get(word.lower()) if len(word) > 2 else None)
        if name is None:
            return None
        self.at += 1
        if self._kind() == "." and self._word_is_short(word):
            self.at += 1
        return self._temperature() if name == "deg" else name

    def _word_is_short(self, word: str) -> bool:
        return len(word) <= 4 and _NAMES.get(word, "") in ("in", "ft", "oz", "lb", "min", "s", "h", "yd", "mi", "cm")

    def raised(self) -> str | None:
        r"""`^\circ`, with or without braces, and C or F behind it."""
        start = self.at
        self.at += 1
        braced = self._kind() == "{"
        self.at += braced
        if self._kind() == "cmd" and self.found[self.at].text in ("circ", "degree"):
            self.at += 1
            if not braced or self._kind() == "}":
                self.at += braced
                return self._temperature()
        self.at = start
        return None

    def _temperature(self) -> str:
        name = _TEMPERATURES.get(self._word())
        self.at += name is not None
        return name or "deg"

    def _power(self) -> int:
        found = self.found[self.at : self.at + 5]
        kinds = [token.kind for token in found]
        for shape, place in ((["^", "{", "-", "num", "}"], 3), (["^", "{", "num", "}"], 2), (["^", "-", "num"], 2)):
            if kinds[: len(shape)] == shape and found[place].value.denominator == 1:
                self.at += len(shape)
                return int(found[place].value) * (-1 if "-" in shape else 1)
        if kinds[:2] == ["^", "num"] and found[1].value.denominator == 1:
            self.at += 2
            return int(found[1].value)
        if kinds[:1] == ["num"] and not found[0].spaced and found[0].text in ("2", "3"):
            self.at += 1
            return int(found[0].text)
        return 1


def _bases(name: str) -> list[tuple[str, int]]:
    over, _, under = _SPLIT.get(name, name).partition("/")
    base, _, power = over.partition("^")
    return [(base, int(power or 1)), *([(under, -1)] if under else [])]
