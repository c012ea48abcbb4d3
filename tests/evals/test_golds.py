"""Gold answers that do not grade themselves are left out under `rule` and listed; a judge is given every item."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from vold.data.benchmarks.item import Form, Item
from vold.evals.marking.golds import GOLDS_RULES, handle_golds
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
    item("16", "choice", "B", "Yes", "No", benchmark="mathvista"),
    item("17", "choice", "B", "Yes", "No", benchmark="mme"),
]
BAD = [
    (item("b1", "choice", "E", "one", "two"), "a letter beyond the options"),
    (item("b2", "integer", "some of them"), "no number"),
    (item("b3", "float", "n/a"), "no number with decimals"),
    (item("b4", "list", "[1, some]"), "no list of numbers"),
    (item("b5", "math", r"\frac{1}{"), "braces that do not match"),
    (item("b6", "math", "x" * 2500), "longer than any answer"),
    (item("b7", "text", " "), "blank"),
    (item("b8", "math", "2 3"), "two numbers side by side"),
    (item("b9", "integer", "14\\"), "a backslash that eats the closing brace"),
]


@pytest.mark.parametrize("good", GOOD, ids=[f"{i.form}-{i.id}" for i in GOOD])
def test_a_gold_that_grades_itself_is_kept(good: Item) -> None:
    assert handle_golds([good], "rule") == handle_golds([good], "vlmevalkit") == ([good], [])


@pytest.mark.parametrize("bad", [b for b, _ in BAD], ids=[why for _, why in BAD])
def test_a_gold_that_does_not_is_listed(bad: Item) -> None:
    kept, (found,) = handle_golds([bad], "rule")
    assert kept == [] and (found.id, found.answer, found.rule) == (bad.id, bad.answer, GOLDS_RULES["rule"])
    assert found.why


@pytest.mark.parametrize("benchmark", ["mmmu", "mme"])
def test_a_gold_that_is_no_letter_of_yes_and_no_is_listed(benchmark: str) -> None:
    _, (found,) = handle_golds([item("1", "choice", "C", "Yes", "No", benchmark=benchmark)], "rule")
    assert found.answer == "C"


def test_order_is_kept_and_nothing_is_lost() -> None:
    mixed = [GOOD[0], BAD[0][0], GOOD[1], BAD[1][0], GOOD[2]]
    kept, bad = handle_golds(mixed, "rule")
    assert kept == [GOOD[0], GOOD[1], GOOD[2]]
    assert [b.id for b in bad] == ["b1", "b2"]


def test_one_good_alternative_is_enough() -> None:
    assert handle_golds([item("1", "text", "\n\nSeine")], "rule")[1] == []


def test_the_reason_is_the_graders_note() -> None:
    _, (found,) = handle_golds([item("1", "integer", "none")], "rule")
    assert found == BadGold("1", "none", "unreadable reference: no number", GOLDS_RULES["rule"])
    assert set(asdict(found)) == {"id", "answer", "why", "rule"}


def test_no_items_are_no_trouble() -> None:
    assert handle_golds([], "rule") == handle_golds([], "vlmevalkit") == ([], [])


def test_a_judge_is_given_every_item_in_order() -> None:
    """A letter stays a letter, MathVerse's judge sees the gold; of the others the gold is compared as a text."""
    prose = item("m", "math", "S.A. $=1209.84$", benchmark="mathverse_vision_only")
    no_option = item("o", "text", "c", "a", "b")
    given = [GOOD[0], prose, *(b for b, _ in BAD), no_option]
    kept, bad = handle_golds(given, "vlmevalkit")
    assert bad == [] and [i.answer for i in kept] == [i.answer for i in given]
    assert [i.form for i in kept] == ["choice", "math", "choice", *["text"] * (len(BAD) - 1), "text"]
    assert [b.id for b in handle_golds(given, "rule")[1]] == ["m", *(b.id for b, _ in BAD), "o"]


def test_a_text_that_is_none_of_the_options_is_left_out_by_rule_though_it_equals_itself() -> None:
    _, (found,) = handle_golds([item("1", "text", "c", "a", "b")], "rule")
    assert found.why == "the gold answer is no option"
