r"""Gold answers that do not grade themselves.

The rule: every gold answer is boxed and marked as if a model had given it. An item whose gold does not get 1.0 could
not be answered right by anyone. It is left out of the accuracy and listed with the reason, so `n` says what counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.evals.scoring import score

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vold.evals.types import Item

GOLDS_RULE = "left out where the gold answer does not grade itself 1.0"


@dataclass(frozen=True)
class BadGold:
    """An item left out: its gold answer and why that does not grade itself."""

    id: str
    answer: str
    why: str


def handle_golds(items: Iterable[Item]) -> tuple[list[Item], list[BadGold]]:
    """Split items into those whose gold answer grades itself and the others."""
    kept: list[Item] = []
    bad: list[BadGold] = []
    for item in items:
        gold = item.answer.split("\n")[0] if item.form == "text" else item.answer
        grade = score(item, rf"\boxed{{{gold}}}")
        if grade.score == 1.0:
            kept.append(item)
        else:
            bad.append(BadGold(item.id, item.answer, grade.note))
    return kept, bad
