r"""Gold answers that cannot be marked, and what each protocol does about them.

Under `rule` every gold answer is boxed and marked as if a model had given it. An item none of whose gold answers gets
1.0 cannot be trusted to be answerable. It is left out: it is not asked, does not count in the accuracy, and is listed
with its answer and the reason, so that the number of items says what was counted. The other way, comparing such golds
as plain text, is not taken: it would count the data's fault against a model that answers in another notation.

A judge reads what no rule can: under `vlmevalkit` every item that has a gold counts, as it does there. Where a number
or an expression is asked for and the gold cannot be read as one, it is compared as a text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import NO_OPTION, benchmarks
from vold.evals.marking.rules import alternatives, score
from vold.run.results import BadGold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vold.data.benchmarks.item import Item, ProtocolName

GOLDS_RULES: Mapping[ProtocolName, str] = {
    "rule": "left out where the gold answer does not grade itself 1.0",
    "vlmevalkit": "left out where the gold answer is empty",
}
"""By protocol; part of every protocol hash."""


def handle_golds(items: Iterable[Item], protocol: ProtocolName) -> tuple[list[Item], list[BadGold]]:
    """Return the items to ask, and those to leave out, each in order.

    Raises:
        VoldError: the worker of the math grader cannot be started.

    Example:
        >>> from vold.data.benchmarks.item import Item
        >>> about_five = Item("dynamath", "1", "How many?", (), (), "about 5", "float", cluster="1")
        >>> kept, bad = handle_golds([about_five], "rule")
        >>> len(kept), bad[0].why
        (0, 'unreadable reference: no number')
        >>> [item.form for item in handle_golds([about_five], "vlmevalkit")[0]]
        ['text']
    """
    kept: list[Item] = []
    bad: list[BadGold] = []
    for item in items:
        why = _fault(item)
        if not why or (protocol != "rule" and (item.form == "choice" or _shown_to_the_judge(item))):
            kept.append(item)
        elif protocol != "rule":
            kept.append(replace(item, form="text"))
        else:
            bad.append(BadGold(item.id, item.answer, why, GOLDS_RULES[protocol]))
    return kept, bad


def _shown_to_the_judge(item: Item) -> bool:
    """Whether a judge compares the gold with the answer, whatever it is."""
    benchmark = benchmarks().get(item.benchmark)
    return benchmark is not None and benchmark.judging is not None and bool(benchmark.judging.agreement)


def _fault(item: Item) -> str:
    if item.options and item.form != "choice":
        return NO_OPTION
    notes = []
    for gold in alternatives(item):
        grade = score(item, rf"\boxed{{{gold}}}")
        if grade.score == 1.0:
            return ""
        notes.append(grade.note)
    return notes[0]
