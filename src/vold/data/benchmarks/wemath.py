"""We-Math: composite problems and their steps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, Judging, Prompt
from vold.data.benchmarks.columns import letter_answer, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, VOLD_TABLE_1
from vold.data.benchmarks.wording import ALONE_THEN_BOX, MATCHING_EXAMPLES, QUESTION_THEN_BOX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.data.files.read import Row

# The official prompt asks for a brief thought and an answer between << and >>; a box is one form for all benchmarks.
_RULE = Prompt(option="{letter}. {text}", with_options=QUESTION_THEN_BOX, without_options=ALONE_THEN_BOX)
# WeMath_COT: hint and requirement are columns of the table; the words are We-Math's own.
_VLMEVALKIT = Prompt(
    option="{letter}. {text}",
    with_options=(
        "Hint: Now, we require you to solve a multiple-choice math question. Please briefly describe your thought "
        "process and provide the final answer(option).\n"
        "Question: {question}\n"
        "Options:\n"
        "{options}\n"
        "\n"
        "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
        "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
    ),
    unconfirmed=True,
)
# The base model's row of the VOLD paper is OpenCompass's, whose We-Math is the strict score.
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "wemath",
        "testmini",
        {
            "Qwen2.5-VL-3B-Instruct": 22.9,
            "X-Reasoner-3B (their reproduction)": 30.6,
            "VLM-R1-3B-Math": 30.0,
            "VLAA-Thinker-3B": 31.5,
            "VOLD": 31.8,
        },
        metric="score_strict",
    ),
    *OPEN_COMPASS.figures(
        "wemath", "testmini", {"Qwen2.5-VL-7B-Instruct": 35.2, "Qwen2.5-VL-3B-Instruct": 22.9}, metric="score_strict"
    ),
)

# VLMEvalKit's words, byte for byte (Apache-2.0; utils/multiple_choice.py).
_JUDGED = (
    "You are an AI assistant who will help me to match an answer with several options of a single-choice "
    "question. You are provided with a question, several options, and an answer, and you need to find which "
    "option is most similar to the answer. If the meaning of all options are significantly different from the "
    "answer, output Z. Your should output a single uppercase character in A, B, C, D, E, F, G (if they are "
    "valid options), and Z. \n"
    + MATCHING_EXAMPLES
    + (
        "Example 3: \n"
        "Question: <start>\n"
        "{question}\n"
        "Options: {options}\n"
        "<end>\n"
        "Answer: <start>\n"
        "{response}\n"
        "<end>\n"
        "Your output: "
    )
)


def wemath(name: str, row: Row) -> Item:
    """We-Math: the steps of a composite problem and the problem itself, which share the column `ID`. Tags `key`
    ("2steps_1", "3steps_multi") and `composite` (that ID) are what the four-dimension score needs."""
    key, composite = text_cell(row, "key"), text_cell(row, "ID", "_key")
    options = tuple(re.sub(r"^\s*[A-L]\s*[.:)]\s*", "", o) for o in _semicolons(text_cell(row, "option")))
    found = tags(row, concept="knowledge concept")
    return Item(
        name,
        f"{composite}/{key}",
        text_cell(row, "question"),
        options,
        pictures(row, "image_path"),
        letter_answer(row, options, "answer"),
        "choice",
        cluster=composite,
        tags={"key": key, "composite": composite, **found},
    )


def _semicolons(text: str) -> Sequence[str]:
    """Options "A. ..;B. ..": split only where a letter follows, since texts hold semicolons themselves."""
    return [o for o in re.split(r"\s*;\s*(?=[A-L]\s*[.:)])", text.strip().strip(";")) if o]


BENCHMARKS = (
    Benchmark(
        "wemath",
        "We-Math",
        "We-Math/We-Math",
        None,
        {"testmini": 1740},
        wemath,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=Judging("wemath", _JUDGED, one_option=True, no_option=True),
        published=_PUBLISHED,
    ),
)
