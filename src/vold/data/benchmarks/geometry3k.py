"""Geometry3K: 601 questions of its test set, 300 of its validation set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark
from vold.data.benchmarks.columns import pictures, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import WRITTEN
from vold.data.files.cells import clean_gold
from vold.data.files.markers import plain

if TYPE_CHECKING:
    from vold.data.files.read import Row


def geometry3k(name: str, row: Row) -> Item:
    """Geometry3K: `<image>` stands before each problem; newer revisions of the data have an `id`."""
    identity = str(row.values.get("id") or row.where.rpartition(" ")[2])
    gold = clean_gold(text_cell(row, "answer"))
    question = plain(text_cell(row, "problem"), "").strip()
    return Item(name, identity, question, (), pictures(row, "images"), gold, "math", cluster=identity)


BENCHMARKS = (
    Benchmark(
        "geometry3k",
        "Geometry3K",
        "hiyouga/geometry3k",
        {split: [(f"data/{split}-*.parquet",)] for split in ("test", "validation")},
        {"test": 601, "validation": 300},
        geometry3k,
        {"rule": WRITTEN},
    ),
)
