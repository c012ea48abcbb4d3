"""EMMA-mini: 400 questions of mathematics, physics, chemistry and coding that cannot be answered from text alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm
from vold.data.benchmarks.columns import letter_answer, lettered_options, numbered_pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.files.markers import numbered

if TYPE_CHECKING:
    from vold.data.files.read import Row

_SUBJECTS = ("Chemistry", "Coding", "Math", "Physics")
_LETTER = "{question}\n\n{options}\n\n\nAnswer with the option's letter from the given choices"
_WORD = "{question}\n\nAnswer the question using a single word or phrase"
_STEPS = "Please solve the problem step by step."
# The official words, with their box; blank lines as in VLMEvalKit's.
_RULE = PromptForm(
    option="{letter}: {text}",
    with_options=f'{_LETTER} and put the letter in one "\\boxed{{}}". {_STEPS}',
    without_options=f'{_WORD} and put the answer in one "\\boxed{{}}". {_STEPS}',
    pictures="mentioned",
    again=True,
)
# EMMA_COT; its table is all of EMMA, of which this is a part.
_VLMEVALKIT = PromptForm(
    option="{letter}: {text}",
    with_options=f"{_LETTER}. {_STEPS} ",
    without_options=f"{_WORD}. {_STEPS} ",
    pictures="mentioned",
    again=True,
    unconfirmed=True,
)


def emma(name: str, row: Row) -> Item:
    """EMMA: choices and open questions; a context before the question where there is one."""
    identity, context = text_cell(row, "pid"), text_cell(row, "context").strip()
    question = numbered("\n\n".join(filter(None, [context, text_cell(row, "question")])))
    if text_cell(row, "type").lower() == "multiple choice":
        options = lettered_options(row, "options")
        answer = letter_answer(row, options, "answer")
    else:
        options, answer = (), text_cell(row, "answer").strip()
    return Item(
        name,
        identity,
        question,
        options,
        numbered_pictures(row),
        answer,
        "choice" if options else "text",
        cluster=identity,
        tags=tags(row, subject="subject", task="task", category="category"),
    )


BENCHMARKS = (
    Benchmark(
        "emma_mini",
        "EMMA-mini",
        "luckychao/EMMA-mini",
        {"test": [tuple(f"{subject}/test-*.parquet" for subject in _SUBJECTS)]},
        {"test": 400},
        emma,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
    ),
)
