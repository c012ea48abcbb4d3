"""`kind: geometry3k`: Geometry3K: pictures, with answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vold.data.benchmarks.columns import cell
from vold.data.hf_datasets import PublishedSet
from vold.data.hf_layouts import Example, checked, own_id

if TYPE_CHECKING:
    from vold.data.files.read import Row


class Spec(PublishedSet):
    """Geometry3K: pictures, with answers."""

    repo: ClassVar[str] = "hiyouga/geometry3k"

    def read(self, row: Row) -> Example:
        """`images`, `problem` with `<image>`, `answer`; newer revisions add `id`, `choices` and `ground_truth`."""
        return checked(own_id(row, "id"), cell(row, "problem"), cell(row, "answer"), row, images=cell(row, "images"))
