"""EMMA-mini: 400 questions of mathematics, physics, chemistry and coding that cannot be answered from text alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm
from vold.data.benchmarks.columns import letter_answer, lettered_options, numbered_pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.wording import MCQ
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
# EMMA_COT.
_VLMEVALKIT = PromptForm(
    option="{letter}: {text}",
    with_options=f"{_LETTER}. {_STEPS} ",
    without_options=f"{_WORD}. {_STEPS} ",
    pictures="mentioned",
    again=True,
    differs="VLMEvalKit's table, which could not be read, is all of EMMA, of which EMMA-mini is a part",
)

# VLMEvalKit's words about an open question, byte for byte (Apache-2.0; utils/shortqa.py).
_TASK = (
    "\n"
    "You are an AI assistant tasked with evaluating whether a model's response correctly answers a given "
    "visual-language question.\n"
    "\n"
    "You will be provided with:\n"
    "1. The question (text only)\n"
    "2. The model's response\n"
    "3. The ground truth answer\n"
    "\n"
    "Your task is to determine whether the model's response conveys the same meaning as the ground truth. The response "
    "is considered **correct** if:\n"
    "- It has the same meaning as the ground truth, even if phrased differently.\n"
    "- It provides additional relevant details without altering the original meaning.\n"
    "\n"
    "The response is considered **wrong** if:\n"
    "- It contradicts the ground-truth\n"
    "- It misses essential information or include additional incorrect information.\n"
    "\n"
    "Your evaluation should include the following fields:\n"
    '- **Correctness**: Either `"yes"` (if correct) or `"no"` (if incorrect).\n'
    "- **Reason**: A brief explanation of your judgment.\n"
    "\n"
    "\n"
    "\n"
    "Here are some examples:\n"
)
_NAME = 'Please tell me the name of the man in this image, in the format of "[First Name] [Given Name]".'
_ALIGNED = "The model response basically align with the ground-truth answer"
_EXAMPLES = (
    (
        _NAME,
        "Franklin D. Roosevelt",
        "Franklin Roosevelt",
        "yes",
        f"{_ALIGNED}, just omitted the middle name. Thus the response is correct.",
    ),
    (_NAME, "Usain Bolt", "Bolt", "no", "The question asks the model to output the "),
    (
        "Where did the text in this image originate from",
        "Ancient Egypt",
        "egypt",
        "yes",
        f"{_ALIGNED} (egypt vs. Ancient Egypt). Thus the response is correct. ",
    ),
    (
        "Name this building",
        "St. Peter's Basilica Church",
        "st peters basilica",
        "yes",
        f"{_ALIGNED}. Thus the response is correct.",
    ),
    (
        "Extract the text on the umbrella in the image",
        "keter",
        "ketter",
        "no",
        "The question requires the model to exactly extract the text on the umbrella. The model response does not "
        "contain the exact text on the umbrella (keter). Thus the response is incorrect. ",
    ),
)
_ASKED = (
    "[Begin Question]{}[End Question]\n[Begin Ground-Truth]{}[End Ground-Truth]\n[Begin Response]{}[End Response]\n"
)
_SAID = "[Begin Correctness]{}[End Correctness]\n[Begin Reason]{}[End Reason]\n\n"
_SHORT = Judging(
    "short",
    _TASK
    + "".join(f"Example {n}:\n" + (_ASKED + _SAID).format(*e) for n, e in enumerate(_EXAMPLES, 1))
    + "\n\nNow please complete the following task:\n\n"
    + _ASKED.format("{question}", "{answer}", "{response}"),
    correctness=True,
    question=lambda item: item.for_judge or item.question,
    verdict="short",
)


def emma(name: str, row: Row) -> Item:
    """EMMA: choices and open questions; a context before the question where there is one."""
    identity, context = text_cell(row, "pid", "index"), text_cell(row, "context")
    question = numbered("\n\n".join(filter(None, [context, text_cell(row, "question")])))
    if text_cell(row, "type").lower() in ("multiple choice", "mcq"):
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
        for_judge=numbered(text_cell(row, "question")) if context else None,
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
        judging=replace(MCQ, question=_SHORT.question, open=_SHORT),
    ),
)
