"""DynaMath: 501 questions in ten variants each."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm, ScoreFile, all_right
from vold.data.benchmarks.columns import letter_answer, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, VOLD_TABLE_1
from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.data.benchmarks.item import Form
    from vold.data.files.read import Row
    from vold.run.answers import Answer

# The official prompt asks for JSON, which a model trained to box ignores. Its scoring allows 0.001, so three decimals
# have to be asked for.
_RULE = PromptForm(
    without_options=(
        '{question}\nPlease solve the problem step by step and put your answer in one "\\boxed{}". {instruction}'
    ),
    instruction={
        "choice": 'Only the letter of the option is allowed in the "\\boxed{}".',
        "float": "Format the answer as a three-digit floating-point number, such as 0.333.",
        "text": (
            "Float numbers in the answer should be formatted as three-digit floating-point numbers, such as 0.333."
        ),
    },
)
# With its JSON instructions and their spelling.
_VLMEVALKIT = PromptForm(
    without_options=(
        "## Question\n"
        " {question}\n"
        "## Answer Instruction Please provide an answer to the question outlined above. Your response should "
        "adhere to the following JSON format, which includes two keys: 'solution' and 'short answer'. The "
        "'solution' key can contain detailed steps needed to solve the question, and the 'short answer' key should "
        "provide a concise response. {instruction}\n"
        "\n"
        "Example of expected JSON response format:\n"
        "\n"
        "{\n"
        '    "solution": "[Detailed step-by-step explanation]",\n'
        '    "short answer": "[Concise Answer]"\n'
        "}"
    ),
    instruction={
        "choice": "Provide the corresponing choice option in the 'short answer' key, such as 'A', 'B', 'C', or 'D'.",
        "float": "Format the answer as a three-digit floating-point number and provide it in the 'short answer' key.",
        "text": "Float numbers in the answer should be formatted as three-digit floating-point numbers.",
    },
)
# OpenCompass's worst case of the base model is 13.2; so the VOLD paper's column is the average over variants.
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "dynamath",
        "sample_variant",
        {
            "Qwen2.5-VL-3B-Instruct": 42.7,
            "X-Reasoner-3B (their reproduction)": 47.2,
            "VLM-R1-3B-Math": 42.7,
            "VLAA-Thinker-3B": 47.5,
            "VOLD": 50.7,
        },
        metric="average",
    ),
    *OPEN_COMPASS.figures(
        "dynamath",
        "sample_variant",
        {"Qwen2.5-VL-7B-Instruct": 21.0, "Qwen2.5-VL-3B-Instruct": 13.2},
        metric="worst_case",
    ),
)

# VLMEvalKit's words, byte for byte (Apache-2.0; utils/dynamath.py; its spelling mistakes are part of the text).
_SYSTEM = (
    "You are a helpful assistant that helps me to format free-form answers into a short answer according to "
    "the instruction.\n"
)
_JUDGED = "Free-form answer: {response}\nInstruction: {instruction}"
_INSTRUCTION: Mapping[Form, str] = {
    "choice": "Output the corresponing choice option, such as 'A', 'B', 'C', 'D', in a single line.",
    "float": "Output a three-digit floating-point number in a single line.",
    "text": (
        "Output a short answer in a single line. Any float numbers in the answer should be formatted as "
        "three-digit floating-point numbers."
    ),
}
_VARIANT = re.compile(r"(?:sample|variant)_?(\d+)")
_JSON_ANSWER = re.compile(r'"short answer"\s*:\s*("(?:[^"\\]|\\.)*"|[-+]?[\d.]+)', re.DOTALL)


def dynamath(name: str, row: Row) -> Item:
    """DynaMath: 501 seed questions in ten variants, each of which is a split: its number is in the file's name."""
    kind, seed = text_cell(row, "answer_type"), text_cell(row, "id")
    forms: Any = {"float": "float", "multiple choice": "choice", "text": "text"}
    if kind not in forms:
        raise DataError("unknown answer type", got=kind)
    gold = text_cell(row, "ground_truth").strip()
    if kind == "multiple choice":
        gold = letter_answer(row, (), "ground_truth")
    named = _VARIANT.findall(row.where)  # the last: folders may have a number too
    variant = named[-1] if named else str(row.values.get("variant") or "1")
    return Item(
        name,
        f"{seed}/{variant}",
        text_cell(row, "question"),
        (),
        pictures(row, "decoded_image" if "decoded_image" in row.values else "image"),
        gold,
        forms[kind],
        cluster=seed,
        tags={"variant": variant} | tags(row, subject="subject", level="knowledge_level"),
    )


def _object(text: str) -> str:
    """The JSON alone, without backslashes, as VLMEvalKit cuts it out."""
    start, end = text.find("{"), text.rfind("}")
    return (text[start : end + 1] if 0 <= start < end else text).replace("\\", "")


def _short_answer(text: str) -> str | None:
    """The last short answer in JSON."""
    found = _JSON_ANSWER.findall(text)
    if not found:
        return None
    value: str = found[-1]
    if value.startswith('"'):
        value = value[1:-1].replace('\\"', '"')
    return value.strip() or None


def _worst_case(items: Items) -> dict[str, dict[str, float]]:
    """Worst case: a seed question counts if every one of its variants is right.

    Seeds with fewer variants than others (a limit, a gold left out) would be easier and are left out.
    """
    seeds = _seeds(items)
    most = max(map(len, seeds.values()), default=0)
    if most < 2:
        return {}
    return {"worst_case": {seed: all_right(variants) for seed, variants in seeds.items() if len(variants) == most}}


def _average(items: Items) -> dict[str, tuple[list[float], list[float]]]:
    """Accuracy over all variants, as DynaMath calls it."""
    scores = [[fmean([r.score for r in answers]) for answers in variants] for variants in _seeds(items).values()]
    return {"average": ([math.fsum(s) for s in scores], [float(len(s)) for s in scores])}


def _seeds(items: Items) -> dict[str, list[Sequence[Answer]]]:
    seeds: dict[str, list[Sequence[Answer]]] = {}
    for answers in items.values():
        seeds.setdefault(answers[0].source, []).append(answers)
    return seeds


_VARIANTS = range(1, 11)
# Each variant is a split of its own; both names are in use.
_FILES = {
    "sample_variant": [
        tuple(f"data/sample_variant{n}-*.parquet" for n in _VARIANTS),
        tuple(f"data/sample{n}-*.parquet" for n in _VARIANTS),
    ]
}
BENCHMARKS = (
    Benchmark(
        "dynamath",
        "DynaMath",
        "DynaMath/DynaMath_Sample",
        _FILES,
        {"sample_variant": 5010},
        dynamath,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=Judging(
            "dynamath",
            _JUDGED,
            system=_SYSTEM,
            instruction=_INSTRUCTION,
            response=_object,
            answer=_short_answer,
            verdict="dynamath",
        ),
        tolerance=Fraction(1, 1000),
        published=_PUBLISHED,
        cluster_scores=_worst_case,
        ratios=_average,
        headline=("average", "worst_case"),
        score_file=ScoreFile({"sample_variant": "DynaMath"}, "settings", ("subject", "level"), judged=True),
    ),
)
