"""`kind: mmk12`: MMK12: pictures, with answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, checked, own_id

if TYPE_CHECKING:
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """MMK12: pictures, with answers."""

    repo: ClassVar[str] = "FanqingM/MMK12"

    def read(self, row: Row) -> Example:
        """`id`, `question`, `answer`, `subject`, `image`."""
        found = tags(row, subject="subject")
        return checked(
            own_id(row, "id"), cell(row, "question"), cell(row, "answer"), row, found, images=cell(row, "image")
        )
