"""MME: 2,374 yes/no questions, two to each picture, in ten subtasks of perception and four of cognition."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile, all_right
from vold.data.benchmarks.columns import pictures, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import VOLD_TABLE_6
from vold.data.benchmarks.wording import YES_NO, YES_NO_BOX, YES_OR_NO, yes_no_letter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row
    from vold.run.answers import Answer

PERCEPTION = (
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
)
COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
_SUMS: Mapping[str, tuple[str, ...]] = {"perception": PERCEPTION, "cognition": COGNITION}

# A question ends with "Please answer yes or no." VLMEvalKit adds nothing to it.
_RULE = PromptForm(with_options=YES_NO_BOX)
_VLMEVALKIT = PromptForm(with_options="{question}")
_PUBLISHED = (
    *VOLD_TABLE_6.figures("mme", "test", {"Qwen2.5-VL-3B-Instruct": 1564.0, "VOLD": 1530.0}, metric="perception"),
    *VOLD_TABLE_6.figures("mme", "test", {"Qwen2.5-VL-3B-Instruct": 594.0, "VOLD": 738.0}, metric="cognition"),
)


def mme(name: str, row: Row) -> Item:
    """MME: a picture's two questions share `question_id` on the hub, `image_path` in VLMEvalKit's table."""
    letter = yes_no_letter(row, "answer")
    picture, question = text_cell(row, "question_id", "image_path"), text_cell(row, "question")
    subtask = text_cell(row, "category")
    cluster = picture if picture.startswith(f"{subtask}/") else f"{subtask}/{picture}"
    identity = f"{cluster}/{row.values.get('index') or YES_OR_NO['AB'.index(letter)].lower()}"
    images = pictures(row, "image")
    return Item(
        name, identity, question, YES_OR_NO, images, letter, "choice", cluster=cluster, tags={"subtask": subtask}
    )


def _scores(items: Items) -> dict[str, tuple[list[float], list[float]]]:
    """Each subtask's score, accuracy plus the share of pictures of which both questions are right (acc+), of 200; and
    the sums over subtasks. A picture counts as much as its subtask has room for it; a sum needs all of its subtasks."""
    by_picture: dict[tuple[str, str], list[Sequence[Answer]]] = {}
    for answers in items.values():
        key = answers[0].tags.get("subtask", ""), answers[0].source
        by_picture.setdefault(key, []).append(answers)
    found = {key: _of_picture(questions) for key, questions in by_picture.items()}
    sizes = Counter(subtask for subtask, _ in found)
    out = {}
    for name, subtasks in _SUMS.items():
        if all(s in sizes for s in subtasks):
            shares = [(score / sizes[s], 1 / sizes[s]) for (s, _), score in found.items() if s in subtasks]
            out[name] = [top for top, _ in shares], [bottom for _, bottom in shares]
    for subtask in sizes:
        scores = [score for (s, _), score in found.items() if s == subtask]
        out[subtask] = scores, [1.0] * len(scores)
    return out


def _of_picture(questions: Sequence[Sequence[Answer]]) -> float:
    """Half of the picture's accuracy and half of whether all of its questions are right."""
    return (fmean([fmean([r.score for r in answers]) for answers in questions]) + all_right(questions)) / 2


BENCHMARKS = (
    Benchmark(
        "mme",
        "MME",
        "lmms-lab/MME",
        {"test": [("data/test-*.parquet",)]},
        {"test": 2374},
        mme,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=YES_NO,
        published=_PUBLISHED,
        ratios=_scores,
        scale={name: 2.0 * len(subtasks) for name, subtasks in _SUMS.items()}
        | dict.fromkeys((*PERCEPTION, *COGNITION), 2.0),
        headline=("perception", "cognition"),
        score_file=ScoreFile({"test": "MME"}, "sums"),
    ),
)
