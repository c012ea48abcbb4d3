"""`kind: virl39k`: ViRL39K: pictures, also several, with answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell, tags
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, checked, own_id

if TYPE_CHECKING:
    from vold.data.files.hub import Layout
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """ViRL39K: pictures, also several, with answers."""

    repo: ClassVar[str] = "TIGER-Lab/ViRL39K"

    def files(self) -> list[Layout]:
        """As they are called in the repository and in copies of it."""
        return [("*.parquet", "images.zip")]

    def read(self, row: Row) -> Example:
        r"""`question`, `answer` such as `\boxed{B}`, `image` (paths into `images.zip`), `category`, `source`, `qid`."""
        found = tags(row, category="category", source="source")
        return checked(
            own_id(row, "qid"),
            cell(row, "question"),
            cell(row, "answer"),
            row,
            found,
            images=cell(row, "image", "images"),
        )
