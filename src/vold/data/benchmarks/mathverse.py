"""MathVerse: 788 problems in five versions, and the vision-only version by itself."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import Benchmark, Judging, PromptForm, ScoreFile
from vold.data.benchmarks.columns import letter_answer, names_option, pictures, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import LEAK, OPEN_COMPASS, QWEN2_5_VL, VOLD_SUPPLEMENT, VOLD_TABLE_1
from vold.data.benchmarks.wording import ALONE_THEN_BOX, QUERY_THEN_BOX
from vold.data.files.cells import clean_gold

if TYPE_CHECKING:
    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row

# The row's chain-of-thought prompt, which a vision-only item has instead of a question; official scoring is a judge.
_RULE = PromptForm(query=QUERY_THEN_BOX, without_options=ALONE_THEN_BOX)
# MathVerse_MINI sends the question alone, MathVerse_MINI_Vision_Only_cot the row's chain-of-thought prompt.
_GOLDS = "the judge is shown a gold without the $ and the degree sign around it"
_VLMEVALKIT = PromptForm(
    without_options="{question}",
    differs=f"VLMEvalKit's own table of the five versions could not be compared with the hub's; {_GOLDS}",
)
_VLMEVALKIT_VISION_ONLY = PromptForm(query="{query}", without_options="{question}", differs=_GOLDS)
_PUBLISHED = (
    *QWEN2_5_VL.figures("mathverse", "testmini", {"Qwen2.5-VL-7B-Instruct": 49.2, "Qwen2.5-VL-3B-Instruct": 47.6}),
)
# The base model's row of the VOLD paper is OpenCompass's, whose MathVerse is the vision-only version.
_VISION_ONLY = (
    *VOLD_TABLE_1.figures(
        "mathverse_vision_only",
        "testmini",
        {
            "Qwen2.5-VL-3B-Instruct": 31.2,
            "X-Reasoner-3B (their reproduction)": 35.7,
            "VLM-R1-3B-Math": 32.2,
            "VLAA-Thinker-3B": 36.4,
            "VOLD": 37.9,
        },
        notes={"VLM-R1-3B-Math": LEAK},
    ),
    *VOLD_SUPPLEMENT.figures(
        "mathverse_vision_only", "testmini", {"VOLD, then reinforcement learning on images": 38.7}
    ),
    *OPEN_COMPASS.figures(
        "mathverse_vision_only", "testmini", {"Qwen2.5-VL-7B-Instruct": 41.1, "Qwen2.5-VL-3B-Instruct": 31.2}
    ),
)

# VLMEvalKit's words, byte for byte (Apache-2.0; utils/mathverse.py).
_EXTRACT = (
    "\n"
    "I am providing you a response from a model to a math problem, termed 'Model Response'. You should extract "
    "the answer from the response as 'Extracted Answer'. Directly output the extracted answer with no "
    "explanation.\n"
    "\n"
    "\n"
    "\n"
    "1.\n"
    "Model response: 'Rounded to two decimal places, the perimeter of the sector is approximately:\n"
    "\n"
    "(-2, 1)'\n"
    "Extracted Answer: (-2, 1)\n"
    "\n"
    "\n"
    "\n"
    "2.\n"
    "Model response: 'at those points.\n"
    "\n"
    "Therefore, the correct option that represents the meaning of the intersection points of the graphs is:\n"
    "\n"
    "D. They give the solutions to the equation $f(t)=g(t)$.\",'\n"
    "Extracted Answer: D\n"
    "\n"
    "\n"
    "\n"
    "3.\n"
    "Model response: ' at 1 (there's a closed circle at y = 1), the range in interval notation is \\((-4, "
    "1]\\).\n"
    "\n"
    "Final values:\n"
    "Domain: \\((-3, 3]\\)\n"
    "Range: \\((-4, 1]\\)'\n"
    "Extracted Answer: Domain: \\((-3, 3]\\)\n"
    "Range: \\((-4, 1]\\)\n"
    "\n"
    "\n"
    "\n"
    "4.\n"
    "Model response: 'As it stands, I cannot provide the correct option letter because there isn't enough "
    "information to solve for 'y'.'\n"
    "Extracted Answer: null\n"
    "\n"
    "\n"
    "\n"
    "5.\n"
    "Model response: 'Given that AB = 17.6 meters, we can now substitute into the equation:\n"
    "\n"
    "d = 17.6 / cos(38°)\n"
    "\n"
    "Therefore, to one decimal place, the distance d between Ned and Bart is approximately 22.3 meters.'\n"
    "Extracted answer: 22.3\n"
    "\n"
    "\n"
    "\n"
    "6.\n"
    "Model response:  have all the coefficients for the quadratic function:\n"
    "\\( f(x) = ax^2 + bx + c \\)\n"
    "\\( f(x) = -1x^2 - 2x + 1 \\)\n"
    "\n"
    "Therefore, the equation for the graphed function \\( f \\) is:\n"
    "\\( f(x) = -x^2 - 2x + 1 \\)\"'\n"
    "Extracted answer: f(x) = -x^2 - 2x + 1\n"
    "\n"
    "\n"
    "7.\n"
    "Model response: '{response}'\n"
    "Extracted Answer: "
)
_SCORE = (
    "\n"
    "Below are two answers to a math question. Question is [Question], [Standard Answer] is the standard "
    "answer to the question, and [Model_answer] is the answer extracted from a model's output to this "
    "question.  Determine whether these two answers are consistent.\n"
    "Please note that only when the [Model_answer] completely matches the [Standard Answer] means they are "
    "consistent. For non-multiple-choice questions, if the meaning is expressed in the same way, it is also "
    "considered consistent, for example, 0.5m and 50cm.\n"
    "If they are consistent, Judement is 1; if they are different, Judement is 0.\n"
    "\n"
    "\n"
    "\n"
    "[Question]: Write the set of numbers represented on the number line in interval notation.\n"
    "[Standard Answer]: (-2,1]\n"
    "[Model_answer] : Extracted Answer: \\((-2, 1)\\)\n"
    "Judgement: 0\n"
    "\n"
    "\n"
    "\n"
    "[Question]: As shown in the figure, circle O has a radius 1.0, if angle BAC = 60.0, then the length of BC "
    "is ()\n"
    "Choices:\n"
    "A:2\n"
    "B:2√{{3}}\n"
    "C:√{{3}}\n"
    "D:2√{{2}}\n"
    "[Standard Answer]: C\n"
    "[Model_answer] : B:2√{{3}}\n"
    "Judgement: 0\n"
    "\n"
    "\n"
    "\n"
    "[Question]: Find the domain and range of the function f using interval notation.\n"
    "[Standard Answer]: domain: [-4, 0) and range: (-3, 1]\n"
    "[Model_answer] : Range: \\((-4, 1]\\)\n"
    "Judgement: 0\n"
    "\n"
    "\n"
    "\n"
    "[Question]: As shown in the figure, circle O has a radius 1.0, if angle BAC = 60.0, then the length of BC "
    "is ()\n"
    "Choices:\n"
    "A:2\n"
    "B:2√{{3}}\n"
    "C:√{{3}}\n"
    "D:2√{{2}}\n"
    "[Standard Answer]: C\n"
    "[Model_answer] : null\n"
    "Judgement: 0\n"
    "\n"
    "\n"
    "\n"
    "    [Question]: {question}\n"
    "    [Standard Answer]: {answer}\n"
    "    [Model_answer] : {extracted}\n"
    "    Judgement:"
)
_JUDGING = Judging("mathverse", _EXTRACT, agreement=_SCORE, verdict="mathverse")


def mathverse(name: str, row: Row) -> Item:
    """MathVerse: 788 problems in five versions. The question of a vision-only row stands in the picture."""
    identity = text_cell(row, "sample_index")
    version = text_cell(row, "problem_version")
    metadata: Any = row.values.get("metadata") or {}
    gold = clean_gold(text_cell(row, "answer"))
    letter = letter_answer(row, (), "answer")
    choice = text_cell(row, "question_type") == "multi-choice" and names_option(letter)
    found = {"version": version} | {k: str(metadata[k]) for k in ("subject", "subfield") if metadata.get(k)}
    return Item(
        name,
        identity,
        text_cell(row, "question"),
        (),
        pictures(row, "image"),
        letter if choice else gold,
        "choice" if choice else "math",
        cluster=text_cell(row, "problem_index"),
        query=str(row.values["query_cot"]) if row.values.get("query_cot") else None,
        for_judge=str(row.values["question_for_eval"]) if row.values.get("question_for_eval") else None,
        tags=found,
    )


def _is_vision_only(row: Row) -> bool:
    return bool(row.values.get("problem_version") == "Vision Only")


def _by_version(items: Items) -> dict[str, dict[str, float]]:
    """The vision-only version by itself: what most papers call MathVerse."""
    return {
        "vision_only": {
            answers[0].source: fmean([r.score for r in answers])
            for answers in items.values()
            if answers[0].tags.get("version") == "Vision Only"
        }
    }


_REPO, _FILES = "AI4Math/MathVerse", {"testmini": [("testmini.parquet",)]}  # not testmini_text_only.parquet
BENCHMARKS = (
    Benchmark(
        "mathverse",
        "MathVerse, five versions",
        _REPO,
        _FILES,
        {"testmini": 3940},
        mathverse,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=_JUDGING,
        published=_PUBLISHED,
        cluster_scores=_by_version,
        score_file=ScoreFile(
            {"testmini": "MathVerse_MINI"}, "versions", ("version", "subject", "subfield"), judged=True
        ),
    ),
    Benchmark(
        "mathverse_vision_only",
        "MathVerse, vision only",
        _REPO,
        _FILES,
        {"testmini": 788},
        mathverse,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT_VISION_ONLY},
        keep=_is_vision_only,
        judging=_JUDGING,
        published=_VISION_ONLY,
        score_file=ScoreFile(
            {"testmini": "MathVerse_MINI_Vision_Only_cot"}, "versions", ("version", "subject", "subfield"), judged=True
        ),
    ),
)
