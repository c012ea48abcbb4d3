"""Stored values as text."""

from __future__ import annotations

from vold.report.text import DASH, MINUS, Shortened, cut, decimal, percent, words


def test_long_texts_lose_their_middle() -> None:
    short = cut("a" * 30_000 + "b" * 20_000, 6000)
    assert short == Shortened("a" * 4000, "44,000", "b" * 2000)
    assert cut("a" * 6000, 6000) == Shortened("a" * 6000)


def test_numbers_say_how_they_are_written() -> None:
    assert (decimal(0.12345), decimal(1234.5, 0), decimal(2, 1, sign=True)) == ("0.123", "1,234", "+2.0")
    assert (percent(0.12345), percent(-0.05, sign=True)) == ("12.3", f"{MINUS}5.0")
    small = {0.0004: "+0.04", -0.0004: f"{MINUS}0.04", 0.0005: "+0.1", 0.0: "+0.0", 1e-17: "+0.0"}
    assert {v: percent(v, sign=True) for v in small} == small
    assert percent(0.0004) == "0.0"  # no difference
    assert [f(v) for f in (decimal, percent) for v in (None, "3", True, float("nan"))] == [DASH] * 8
    assert (words(None), words(""), words(0), words([1]), words("a")) == (DASH, DASH, "0", "[1]", "a")
