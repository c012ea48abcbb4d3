r"""More than 25,000 undisputed answers of twenty benchmarks, made by rules (`undisputed`): both protocols mark them.

`python tests/helpers/undisputed.py` prints the table.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from undisputed import Case, cases, mark, protocols
from undisputed_items import benchmarks_asked
from vold.data.benchmarks.item import Item

LEAST_RIGHT = {"rule": 0.99, "vlmevalkit": 0.999}
"""The share of undisputed answers that a protocol must mark as a reader does. No wrong one may be accepted."""


BY_HAND = [json.loads(line) for line in Path(__file__).with_name("by_hand.jsonl").read_text("utf-8").splitlines()]
"""Answers written by hand, in any words a model may find, to one item each."""


@pytest.fixture(scope="module")
def made() -> dict[str, list[Case]]:
    return {name: cases(name) for name in benchmarks_asked()}


@pytest.mark.parametrize("name", benchmarks_asked())
def test_undisputed_answers_are_marked_as_a_reader_marks_them(name: str, made: dict[str, list[Case]]) -> None:
    for protocol in protocols(name):
        marks = [(mark(case, protocol), case) for case in made[name]]
        assert [case for score, case in marks if score > case.right] == [], protocol
        missed = [case for score, case in marks if score != case.right]
        assert len(missed) <= (1 - LEAST_RIGHT[protocol]) * len(marks), (protocol, missed)


def test_the_answers_are_many_and_no_padding(made: dict[str, list[Case]]) -> None:
    assert len(made) >= 12
    every = [case for found in made.values() for case in found]
    assert len(every) >= 20_000
    assert sum(len(made[name]) for name in made if "vlmevalkit" in protocols(name)) >= 15_000
    assert len({(c.item.benchmark, c.item.id, c.text, c.finish) for c in every}) == len(every)
    assert min(map(len, made.values())) >= 800
    assert 0.35 < sum(case.right for case in every) / len(every) < 0.65
    kinds = Counter(case.kind for case in every)
    assert len(kinds) >= 35
    assert made["mme"] == cases("mme")


@pytest.mark.parametrize("row", BY_HAND, ids=[f"{n}-{row['item']['form']}" for n, row in enumerate(BY_HAND)])
def test_answers_by_hand_are_marked_as_a_reader_marks_them(row: dict[str, Any]) -> None:
    asked = Item(id="1", images=(), cluster="1", **{**row["item"], "options": tuple(row["item"].get("options", ()))})
    gold = asked.options["AB".index(asked.answer)] if asked.options == ("Yes", "No") else asked.answer
    for protocol in ("rule", "vlmevalkit"):
        for right in (True, False):
            made = [Case("by hand", asked, t, right, gold if right else "") for t in row["right" if right else "wrong"]]
            assert [case.text for case in made if mark(case, protocol) != right] == [], (protocol, right)


def test_the_answers_by_hand_are_many() -> None:
    assert sum(len(row["right"]) for row in BY_HAND) >= 400
    assert sum(len(row["wrong"]) for row in BY_HAND) >= 240
