"""`kind: mixture_of_thoughts`: Mixture-of-Thoughts: text, with solutions and no answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, question_and_answer

if TYPE_CHECKING:
    from vold.data.files.hub import Layout
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """Mixture-of-Thoughts: text, with solutions and no answers."""

    repo: ClassVar[str] = "open-r1/Mixture-of-Thoughts"
    config: str | None = None
    """Part of the set: `math`, `code` or `science`; `all` if absent."""

    def files(self) -> list[Layout]:
        """Shards of the config."""
        return [(f"{self.config or 'all'}/train-*.parquet",)]

    def read(self, row: Row) -> Example:
        """`messages` of a user and an assistant, `num_tokens`, `source`. The traces are DeepSeek-R1's; no answers."""
        asked, answered = question_and_answer(cell(row, "messages"), "role", "content")
        return Example("", asked, response=answered, tags=tags(row, source="source"))
