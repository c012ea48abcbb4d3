"""AIME 2024 and 2025: thirty problems each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark
from vold.data.benchmarks.columns import text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import WRITTEN
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row


def aime(name: str, row: Row) -> Item:
    """AIME 2024 and 2025, in the spellings of their copies. A gold may be zero padded ("033")."""
    gold = text_cell(row, "Answer", "answer").strip()
    if not re.fullmatch(r"\d{1,3}", gold):
        raise DataError("an AIME answer is a whole number from 0 to 999", got=gold[:40])
    names = [n for n in ("ID", "id", "problem_idx") if n in row.values]
    identity = str(row.values[names[0]]) if names else row.where.rpartition(" ")[2]
    problem = text_cell(row, "Problem", "problem")
    return Item(name, identity, problem, (), (), str(int(gold)), "integer", cluster=identity)


_FILES_2024 = {"train": [("aime_2024_problems.parquet",)]}
_FILES_2025 = {"test": [("test.jsonl",)]}
BENCHMARKS = (
    Benchmark("aime2024", "AIME 2024", "Maxwell-Jia/AIME_2024", _FILES_2024, {"train": 30}, aime, {"rule": WRITTEN}),
    Benchmark("aime2025", "AIME 2025", "math-ai/aime25", _FILES_2025, {"test": 30}, aime, {"rule": WRITTEN}),
)
