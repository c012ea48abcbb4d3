"""MATH-500: the text benchmark of competition problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark
from vold.data.benchmarks.columns import tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import WRITTEN
from vold.data.files.cells import clean_gold

if TYPE_CHECKING:
    from vold.data.files.read import Row


def math500(name: str, row: Row) -> Item:
    """MATH-500."""
    identity = text_cell(row, "unique_id")
    gold = clean_gold(text_cell(row, "answer"))
    found = tags(row, subject="subject", level="level")
    return Item(name, identity, text_cell(row, "problem"), (), (), gold, "math", cluster=identity, tags=found)


_FILES = {"test": [("test.jsonl",)]}
BENCHMARKS = (
    Benchmark("math500", "MATH-500", "HuggingFaceH4/MATH-500", _FILES, {"test": 500}, math500, {"rule": WRITTEN}),
)
