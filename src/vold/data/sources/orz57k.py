"""`kind: orz57k`: Open-Reasoner-Zero's 57k: text, with answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, text_cell
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, checked
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.hub import Layout
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """Open-Reasoner-Zero's 57k: text, with answers."""

    repo: ClassVar[str] = "Open-Reasoner-Zero/orz_math_57k_collection"

    def files(self) -> list[Layout]:
        """As they are called in the repository and in copies of it."""
        return [("*57k*.json",), ("data/train-*.parquet",)]

    def read(self, row: Row) -> Example:
        """A pair of turns, the second with `ground_truth.value` and no words. Or flat columns, as copies have it."""
        if "_items" not in row.values:
            return checked(
                "", text_cell(row, "problem", "question", "prompt"), cell(row, "answer", "ground_truth"), row
            )
        turns = [t for t in row.values["_items"] if isinstance(t, dict)]
        asked = [t.get("value") for t in turns if t.get("from") == "human"]
        truth = [t["ground_truth"] for t in turns if isinstance(t.get("ground_truth"), dict)]
        if len(asked) != 1 or len(truth) != 1:
            raise DataError("this is not a question with its ground truth", got=repr(row.values["_items"])[:100])
        return checked("", asked[0], truth[0].get("value"), row)
