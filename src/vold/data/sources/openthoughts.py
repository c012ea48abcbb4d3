"""`kind: openthoughts`: OpenThoughts-114k: text, with solutions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags, text_cell
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, question_and_answer, thinking, worded
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.hub import Layout
    from vold.data.files.read import Row

_THOUGHT = re.compile(
    r"<\|begin_of_thought\|>\s*(.*?)\s*<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>\s*(.*?)\s*(?:<\|end_of_solution\|>)?\s*",
    re.DOTALL,
)


class Spec(PublishedSet):
    """OpenThoughts-114k: text, with solutions."""

    repo: ClassVar[str] = "open-thoughts/OpenThoughts-114k"
    config: str | None = None
    """Part of the set: `metadata`, or the conversations if absent."""

    def files(self) -> list[Layout]:
        """Shards of the config."""
        return [(f"{self.config or 'data'}/train-*.parquet",)]

    def read(self, row: Row) -> Example:
        """`system` and `conversations`, or the `metadata` config: `problem`, `deepseek_reasoning`, `deepseek_solution`.

        Thought and solution are given in `<think>` form. The system text, which asks for the other form, is left out.
        """
        found = tags(row, domain="domain", source="source")
        if "problem" in row.values:
            thought, solution = text_cell(row, "deepseek_reasoning"), text_cell(row, "deepseek_solution")
            return Example(
                "",
                worded(cell(row, "problem")),
                response=thinking(thought, solution) if thought.strip() and solution.strip() else None,
                tags=found,
            )
        asked, answered = question_and_answer(cell(row, "conversations"), "from", "value")
        parts = _THOUGHT.fullmatch(answered.strip())
        if parts is None and "<|begin_of_thought|>" in answered:
            raise DataError("the solution is cut short", got=answered[-60:])
        return Example("", asked, response=thinking(parts[1], parts[2]) if parts else answered, tags=found)
