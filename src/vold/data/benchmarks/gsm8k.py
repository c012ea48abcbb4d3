"""GSM8K: grade-school word problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark
from vold.data.benchmarks.columns import text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import WRITTEN
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row


def gsm8k(name: str, row: Row) -> Item:
    """GSM8K: the gold follows the last `####` of a worked answer. Rows have no name of their own."""
    worked = text_cell(row, "answer")
    if "####" not in worked:
        raise DataError("the worked answer has no `####`", got=worked[-60:])
    gold = worked.rpartition("####")[2].strip().replace(",", "")
    identity = row.where.rpartition(" ")[2]
    return Item(name, identity, text_cell(row, "question"), (), (), gold, "integer", cluster=identity)


_FILES = {"test": [("main/test-*.parquet",)]}
BENCHMARKS = (Benchmark("gsm8k", "GSM8K", "openai/gsm8k", _FILES, {"test": 1319}, gsm8k, {"rule": WRITTEN}),)
