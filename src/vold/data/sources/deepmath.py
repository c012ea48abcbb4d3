"""`kind: deepmath`: DeepMath-103K: text, with answers, solutions and difficulties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, checked

if TYPE_CHECKING:
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """DeepMath-103K: text, with answers, solutions and difficulties."""

    repo: ClassVar[str] = "zwhe99/DeepMath-103K"
    min_difficulty: float | None = None
    """Easier problems are left out (Uni-OPD: 6)."""

    def unwanted(self, example: Example) -> tuple[str, str] | None:
        """Problems that are too easy, and those of an unknown difficulty."""
        if self.min_difficulty is None:
            return None
        given = example.tags.get("difficulty")
        return ("below min_difficulty", given or "none given") if _number(given) < self.min_difficulty else None

    def read(self, row: Row) -> Example:
        """`question`, `final_answer`, `difficulty`, `topic`, and `r1_solution_1` to `_3`: the first is taken."""
        found = tags(row, difficulty="difficulty", topic="topic")
        return checked(
            "", cell(row, "question"), cell(row, "final_answer"), row, found, row.values.get("r1_solution_1") or None
        )


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return -math.inf
