"""Gold answers that do not grade themselves are found, left out and listed with the reason."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from vold.data.benchmarks.item import Form, Item
from vold.evals.marking.golds import GOLDS_RULE, check_golds, handle_golds
from vold.run.results import BadGold


def item(identity: str, form: Form, answer: str, *options: str, benchmark: str = "any") -> Item:
    return Item(benchmark, identity, "", options, (), answer, form, cluster=identity)


GOOD = [
    item("1", "choice", "B", "one", "two"),
    item("2", "choice", "L"),
    item("3", "letters", "A, C"),
    item("4", "letters", "3"),
    item("5", "integer", "033"),
    item("6", "integer", "1,234"),
    item("7", "float", "0.125"),
    item("8", "float", "-1.5", benchmark="dynamath"),
    item("9", "list", "[0, 2, 7]"),
    item("10", "math", r"\frac{36}{13}"),
    item("11", "math", "1:2"),
    item("12", "math", r"9 \pi \mathrm{cm}^{2}"),
    item("13", "text", "Seine\nLoire"),
    item("14", "text", "8.4"),
    item("15", "choice", "B", "b", "a"),
]
BAD = [
    (item("b1", "choice", "E", "one", "two"), "a letter beyond the options"),
    (item("b2", "integer", "about 5"), "no number"),
    (item("b3", "float", "n/a"), "no number with decimals"),
    (item("b4", "list", "[1, two]"), "no list of numbers"),
    (item("b5", "math", r"\frac{1}{"), "braces that do not match"),
    (item("b6", "math", "x" * 2500), "longer than any answer"),
    (item("b7", "text", " "), "blank"),
    (item("b8", "math", "2 3"), "two numbers side by side"),
    (item("b9", "integer", "14\\"), "a backslash that eats the closing brace"),
]


@pytest.mark.parametrize("good", GOOD, ids=[f"{i.form}-{i.id}" for i in GOOD])
def test_a_gold_that_grades_itself_is_kept(good: Item) -> None:
    assert handle_golds([good]) == ([good], [])


@pytest.mark.parametrize("bad", [b for b, _ in BAD], ids=[why for _, why in BAD])
def test_a_gold_that_does_not_is_listed(bad: Item) -> None:
    (found,) = check_golds([bad])
    assert (found.id, found.answer, found.rule) == (bad.id, bad.answer, GOLDS_RULE)
    assert found.why


def test_order_is_kept_and_nothing_is_lost() -> None:
    mixed = [GOOD[0], BAD[0][0], GOOD[1], BAD[1][0], GOOD[2]]
    kept, bad = handle_golds(mixed)
    assert kept == [GOOD[0], GOOD[1], GOOD[2]]
    assert [b.id for b in bad] == ["b1", "b2"]
    assert check_golds(mixed) == bad


def test_one_good_alternative_is_enough() -> None:
    assert check_golds([item("1", "text", "\n\nSeine")]) == []


def test_the_reason_is_the_graders_note() -> None:
    (found,) = check_golds([item("1", "integer", "none")])
    assert found == BadGold("1", "none", "unreadable reference: no number", GOLDS_RULE)
    assert set(asdict(found)) == {"id", "answer", "why", "rule"}


def test_no_items_are_no_trouble() -> None:
    assert handle_golds([]) == ([], [])
