r"""Gold answers that do not grade themselves.

The rule: every gold answer is boxed and marked as if a model had given it. An item none of whose gold answers gets 1.0
cannot be trusted to be answerable. It is left out: it is not asked, does not count in the accuracy, and is listed with
its answer and the reason, so that the number of items says what was counted. The other way, comparing such golds as
plain text, is not taken: it would count the data's fault against a model that answers in another notation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.evals.marking.rules import alternatives, score
from vold.run.results import BadGold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vold.data.benchmarks.item import Item

GOLDS_RULE = "left out where the gold answer does not grade itself 1.0"
"""Part of every protocol hash."""


def check_golds(items: Iterable[Item]) -> list[BadGold]:
    """Return the items whose gold answer does not grade itself 1.0, in order.

    Raises:
        VoldError: the worker of the math grader cannot be started.
    """
    return handle_golds(items)[1]


def handle_golds(items: Iterable[Item]) -> tuple[list[Item], list[BadGold]]:
    """Return the items to ask, and those to leave out, each in order.

    Raises:
        VoldError: the worker of the math grader cannot be started.

    Example:
        >>> from vold.data.benchmarks.item import Item
        >>> kept, bad = handle_golds([Item("gsm8k", "1", "How many?", (), (), "none", "integer", cluster="1")])
        >>> len(kept), bad[0].why
        (0, 'unreadable reference: no number')
    """
    kept: list[Item] = []
    bad: list[BadGold] = []
    for item in items:
        why = _fault(item)
        if why:
            bad.append(BadGold(item.id, item.answer, why, GOLDS_RULE))
        else:
            kept.append(item)
    return kept, bad


def _fault(item: Item) -> str:
    notes = []
    for gold in alternatives(item):
        grade = score(item, rf"\boxed{{{gold}}}")
        if grade.score == 1.0:
            return ""
        notes.append(grade.note)
    return notes[0]
