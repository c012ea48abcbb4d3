"""Where an answer was read, for whoever looks at how it was marked. Nothing is marked here and no judge is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.evals.marking.llm_judge import judge_prompt, judging_of, prediction, read_plainly
from vold.evals.marking.rules import find_answer
from vold.graders.extract import after_thinking

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.data.benchmarks.item import Item


LAST = 60
"""Characters of an answer that names one option and nothing else that can be read."""


def where_read(item: Item, response: str, said: Callable[[str, str], str | None] | None) -> tuple[str, str]:
    r"""The place of an answer in words, and what stands there; both empty where it is not known.

    `said` gives what a judge has replied to a prompt and a system prompt; None under a protocol without one.

    Example:
        >>> from vold.data.benchmarks.item import Item
        >>> two = Item("mathvista", "1", "How many?", (), (), "2", "integer", cluster="1")
        >>> where_read(two, r"There are \boxed{2}.", None)
        ('the box', '2')
    """
    text = prediction(response)
    if said is not None and read_plainly(item, text) is None:
        reply = said(judge_prompt(item, text), judging_of(item).system)
        return ("", "") if reply is None else ("the judge's reply", reply)
    if said is not None and (short := judging_of(item).answer(text)) is not None:
        return "the form that was asked for", short
    stated = None if after_thinking(response) is None else find_answer(text)
    if stated is not None:
        return f"the {stated.place}", stated.readings[0]
    return ("", "") if said is None else ("the only option it names", text[-LAST:])
