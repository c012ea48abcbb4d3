"""OlympiadBench: its 150 open questions of mathematics with pictures, in English."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm
from vold.data.benchmarks.columns import cell, numbered_pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import MATHVISION
from vold.data.files.cells import clean_gold, listed
from vold.data.files.markers import numbered
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row

# Official, and VLMEvalKit's too, which has the pictures behind the text.
_RULE = PromptForm(query="{query}", without_options="{question}")
_VLMEVALKIT = PromptForm(
    query="{query}",
    without_options="{question}",
    pictures="last",
    marker="<image_{number}>",
    differs="VLMEvalKit's table, which could not be read, is all of OlympiadBench, with theorems and Chinese questions",
)
_ASKED = (
    "The following is an open-ended problem from an International Math competition. {kind}Please calculate the answer "
    "according to the given requirements and the information provided. Please use LaTeX format to represent the "
    "variables and formulas used in the solution process and results. Please end your solution with "
    '"So the final answer is {answer}." and give the result explicitly{unit}.\n{question}'
)
_KINDS = {
    "Numerical": "a numerical value",
    "Expression": "an expression",
    "Equation": "an equation",
    "Interval": "an interval",
}


def olympiadbench(name: str, row: Row) -> Item:
    """OlympiadBench: the official prompt says what kind of answer the row has. Several answers stand between commas."""
    identity, kind = text_cell(row, "id"), text_cell(row, "answer_type")
    gold = ", ".join(clean_gold(a) for a in listed(cell(row, "final_answer")))
    question = numbered(text_cell(row, "question"))
    several, unit = str(row.values.get("is_multiple_answer")) == "True", text_cell(row, "unit").strip()
    query = _ASKED.format(
        kind=_kind(kind, several),
        answer=("\\boxed{multiple answers connected with commas}" if several else "\\boxed{answer}")
        + ("(unit)" if unit else ""),
        unit=", note that the unit of the answer should not be included in \\boxed{}" if unit else "",
        question=question,
    )
    return Item(
        name,
        identity,
        question,
        (),
        numbered_pictures(row),
        gold,
        "math",
        cluster=identity,
        unit=unit or None,
        query=query,
        tags=tags(row, subfield="subfield", kind="answer_type"),
    )


def _kind(kind: str, several: bool) -> str:
    """What the prompt says of the answer; nothing of tuples, as officially."""
    if "Tuple" in kind or "Need_human_evaluate" in kind:
        return ""
    names = [_KINDS[k] for part in kind.split(",") for k in _KINDS if k in part.partition("-")[0]]
    if not names:
        raise DataError("unknown type of answer", got=kind)
    if not several:
        return f"The answer of The problem should be {names[0]}. "
    if len(set(names)) == 1:
        return f"The problem has multiple answers, each of them should be {names[0]}. "
    return f"The problem has multiple answers, with the answers in order being {', '.join(names)}. "


BENCHMARKS = (
    Benchmark(
        "olympiadbench_mm_maths",
        "OlympiadBench, maths with pictures",
        "Hothan/OlympiadBench",
        {"train": [("OlympiadBench/OE_MM_maths_en_COMP/OE_MM_maths_en_COMP.parquet",)]},
        {"train": 150},
        olympiadbench,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        # VLMEvalKit has no judge here; answers without a box are read as MATH-Vision's.
        judging=Judging("mathvision", MATHVISION, question="asked", verdict="olympiadbench"),
    ),
)
