"""Adapters of the text benchmarks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.columns import tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.files.cells import clean_gold
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row


def math500(name: str, row: Row) -> Item:
    """MATH-500."""
    identity = text_cell(row, "unique_id")
    gold = clean_gold(text_cell(row, "answer"))
    found = tags(row, subject="subject", level="level")
    return Item(name, identity, text_cell(row, "problem"), (), (), gold, "math", cluster=identity, tags=found)


def gsm8k(name: str, row: Row) -> Item:
    """GSM8K: the gold follows the last `####` of a worked answer. Rows have no name of their own."""
    worked = text_cell(row, "answer")
    if "####" not in worked:
        raise DataError("the worked answer has no `####`", got=worked[-60:])
    gold = worked.rpartition("####")[2].strip().replace(",", "")
    identity = row.where.rpartition(" ")[2]
    return Item(name, identity, text_cell(row, "question"), (), (), gold, "integer", cluster=identity)


def aime(name: str, row: Row) -> Item:
    """AIME 2024 and 2025, in the spellings of their copies. A gold may be zero padded ("033")."""
    gold = text_cell(row, "Answer", "answer").strip()
    if not re.fullmatch(r"\d{1,3}", gold):
        raise DataError("an AIME answer is a whole number from 0 to 999", got=gold[:40])
    names = [n for n in ("ID", "id", "problem_idx") if n in row.values]
    identity = str(row.values[names[0]]) if names else row.where.rpartition(" ")[2]
    problem = text_cell(row, "Problem", "problem")
    return Item(name, identity, problem, (), (), str(int(gold)), "integer", cluster=identity)
