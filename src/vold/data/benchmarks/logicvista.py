"""LogicVista: 448 questions of logic in pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm, ScoreFile
from vold.data.benchmarks.columns import pictures, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, VOLD_ABLATIONS, VOLD_TABLE_1
from vold.data.files.cells import listed
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row

# There is no official prompt beyond the question. Answers may be several letters, which MATH-Vision's words forbid.
_RULE = PromptForm(
    without_options=(
        "{question}\n"
        'Please solve the problem step by step and put your answer in one "\\boxed{}". Put the option letters in '
        'the "\\boxed{}", separated by commas where there are several.'
    )
)
# Nothing is added.
_VLMEVALKIT = PromptForm(without_options="{question}")
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "logicvista",
        "test",
        {
            "Qwen2.5-VL-3B-Instruct": 40.3,
            "X-Reasoner-3B (their reproduction)": 41.1,
            "VLM-R1-3B-Math": 40.5,
            "VLAA-Thinker-3B": 38.5,
            "VOLD": 45.0,
        },
    ),
    *VOLD_ABLATIONS.figures(
        "logicvista",
        "test",
        {
            "VOLD, SFT only": 28.9,
            "VOLD, SFT and GRPO": 38.3,
            "VOLD, SFT on DeepSeek-R1's traces and GRPO": 41.1,
            "VOLD, SFT on DeepSeek-R1's traces and distillation": 41.2,
        },
    ),
    *OPEN_COMPASS.figures("logicvista", "test", {"Qwen2.5-VL-7B-Instruct": 44.1, "Qwen2.5-VL-3B-Instruct": 40.3}),
)

# VLMEvalKit's words, byte for byte (Apache-2.0; utils/logicvista.py).
_JUDGED = (
    "You are a information extractor that extracts multiple choice letter answer choices from a paragraph that "
    "contains the answer choice and sometimes explaination of why that choice is correct to the given question.\n"
    "What letter did the following answer choose? If the answer did not select a letter answer choice, first try to "
    "infer the answer based off the given choices.\n"
    "If it does not seem like the given answer corresponds to an answer choice OR if there is no selected "
    "answer, please just respond with Z.\n"
    "Make sure you answer with ONLY the letters chosen.\n"
    "Example 1: \n"
    "Question: <start>\n"
    "What is the main object in image?\n"
    "Options: A. teddy bear B. rabbit C. cat D. dog\n"
    "<end>\n"
    "Answer: <start>\n"
    "a cute teddy bear\n"
    "<end>\n"
    "Your output: A\n"
    "Example 2: \n"
    "Question: <start>\n"
    "What is the main object in image?\n"
    "Options: A. teddy bear B. rabbit C. cat D. dog\n"
    "<end>\n"
    "Answer: <start>\n"
    "Spider\n"
    "<end>\n"
    "Your output: Z\n"
    "Example 3: \n"
    "Question: <start>\n"
    "Which figure is a rotation of the object?\n"
    "<end>\n"
    "Answer: <start>\n"
    'The figure on the right, labeled "D," is a rotation of the object shown in the top left corner.\n'
    "<end>\n"
    "Your output: D\n"
    "Example 4: \n"
    "Question: <start>\n"
    "Which of the boxes comes next in the sequence? Select from A-E\n"
    "<end>\n"
    "Answer: <start>\n"
    "The sequence of the boxes is A, B, C, D, E.\n"
    "<end>\n"
    "Your output: ABCDE\n"
    "Example 5: \n"
    "Question: <start>\n"
    "{question}\n"
    "<end>\n"
    "Answer: <start>\n"
    "{response}\n"
    "<end>\n"
    "Your output: "
)


def logicvista(name: str, row: Row) -> Item:
    """LogicVista: letters, some of them several; options mostly in the picture; one gold is a number."""
    identity = text_cell(row, "_key", "index", "id")
    gold, question = text_cell(row, "answer").strip(), text_cell(row, "question")
    if not gold or not question.strip():
        raise DataError("the question or its answer is empty")
    form: Any = "letters" if re.fullmatch(r"[A-La-l](?:\s*,\s*[A-La-l])*", gold) else "text"
    answer = ", ".join(sorted(re.findall(r"[A-L]", gold.upper()))) if form == "letters" else gold
    skills = listed(row.values.get("skill")) if str(row.values.get("skill", "")).startswith("[") else None
    skill = ", ".join(skills) if skills else text_cell(row, "skill")
    image_columns = ("image",) if "image" in row.values else ("imagename", "image_path")
    images = pictures(row, *image_columns)
    return Item(
        name, identity, question, (), images, answer, form, cluster=identity, tags={"skill": skill} if skill else {}
    )


BENCHMARKS = (
    Benchmark(
        "logicvista",
        "LogicVista",
        "lscpku/LogicVista",
        {"test": [("data/test-*.parquet",), ("data/dataset.json",)]},
        {"test": 448},
        logicvista,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=Judging("logicvista", _JUDGED, no_option=True, verdict="logicvista"),
        empty=1,
        published=_PUBLISHED,
        score_file=ScoreFile(
            {"test": "LogicVista"}, "counts", ("skill",), judged=True, head="Task&Skill", several=("skill",)
        ),
    ),
)
