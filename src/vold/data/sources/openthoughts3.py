"""`kind: openthoughts3`: OpenThoughts3-1.2M: text, with solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, question_and_answer

if TYPE_CHECKING:
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """OpenThoughts3-1.2M: text, with solutions."""

    repo: ClassVar[str] = "open-thoughts/OpenThoughts3-1.2M"

    def read(self, row: Row) -> Example:
        """`difficulty`, `source`, `domain`, `conversations`; solutions have `<think>` already."""
        asked, answered = question_and_answer(cell(row, "conversations"), "from", "value")
        return Example("", asked, response=answered, tags=tags(row, domain="domain", source="source"))
