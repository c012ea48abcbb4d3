"""Where an answer was read, as the page says it."""

from __future__ import annotations

import pytest

from vold.data.benchmarks.item import Item
from vold.evals.marking.llm_judge import judge_prompt, judging_of
from vold.evals.marking.reading import where_read

ITEM = Item("mathvista", "1", "How many?", ("12", "15"), (), "B", "choice", cluster="1")


@pytest.mark.parametrize(
    ("response", "place", "text"),
    [
        (r"<think>\boxed{9}</think>So \boxed{15}.", "the box", "15"),
        ("Twelve and three.\nAnswer: (B)", "the answer line", "(B)"),
        ("I cannot say.", "", ""),
        (r"<think>never closed \boxed{15}", "", ""),
    ],
)
def test_a_rule_says_where_it_reads(response: str, place: str, text: str) -> None:
    assert where_read(ITEM, response, None) == (place, text)


def test_what_a_judge_has_read_is_its_reply() -> None:
    response = "It is more than a dozen, by three."
    asked = {(judge_prompt(ITEM, response), judging_of(ITEM).system): "B"}
    assert where_read(ITEM, response, lambda prompt, system: asked.get((prompt, system))) == ("the judge's reply", "B")
    assert where_read(ITEM, response, lambda _prompt, _system: None) == ("", "")


def test_a_judge_is_not_named_where_a_rule_was_enough() -> None:
    def said(_prompt: str, _system: str) -> str:
        return "A"

    assert where_read(ITEM, r"So \boxed{B}.", said) == ("the box", "B")
    seed = Item("dynamath", "1/1", "How many?", (), (), "15.0", "float", cluster="1")
    assert where_read(seed, '{"solution": "..", "short answer": "15.000"}', said)[1] == "15.000"
