"""Published training sets: where each lies on the hub, and how a row of its own layout becomes a problem.

Layouts are those of the published files; columns that no stage reads are passed over. A row that has no problem, no
answer where its set has answers, or pictures that do not fit its text raises `DataError` and is left out by the caller.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.columns import cell, tags, text_cell
from vold.data.files.cells import clean_gold, listed
from vold.data.files.images import image_bytes, image_values
from vold.data.files.markers import plain
from vold.errors import DataError
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.data.files.read import Row

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""Asks for what the graders read: the words that Qwen's models are evaluated with."""
_THOUGHT = re.compile(
    r"<\|begin_of_thought\|>\s*(.*?)\s*<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>\s*(.*?)\s*(?:<\|end_of_solution\|>)?\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """A row's problem. `reference` is "" where the set gives no answer, `response` None where it gives no solution.

    `images` are encoded pictures in the order of the `<image>` markers in `problem`; without markers they come first.

    Example:
        >>> Example("1", "What is 2 + 3?", "5").grader
        'math'
    """

    id: str
    problem: str
    reference: str = ""
    grader: str = "math"
    images: tuple[bytes, ...] = ()
    response: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A training set: its hub repository, the files of a config, and what makes a problem of a row."""

    repo: str
    files: Callable[[str | None], list[str]]
    read: Callable[[Row], Example]


def mixture_of_thoughts(row: Row) -> Example:
    """`messages` of a user and an assistant, `num_tokens`, `source`. The traces are DeepSeek-R1's; no answers."""
    asked, answered = _turns(cell(row, "messages"), "role", "content")
    return Example("", asked, response=answered, tags=tags(row, source="source"))


def orz57k(row: Row) -> Example:
    """A pair of turns, the second without words but with `ground_truth.value`. Or flat columns, as copies have it."""
    if "_items" not in row.values:
        return _checked("", text_cell(row, "problem", "question", "prompt"), cell(row, "answer", "ground_truth"), row)
    turns = [t for t in row.values["_items"] if isinstance(t, dict)]
    asked = [t.get("value") for t in turns if t.get("from") == "human"]
    truth = [t["ground_truth"] for t in turns if isinstance(t.get("ground_truth"), dict)]
    if len(asked) != 1 or len(truth) != 1:
        raise DataError("this is not a question with its ground truth", got=repr(row.values["_items"])[:100])
    return _checked("", asked[0], truth[0].get("value"), row)


def deepmath(row: Row) -> Example:
    """`question`, `final_answer`, `difficulty`, `topic`, and `r1_solution_1` to `_3`, of which the first is taken."""
    found = tags(row, difficulty="difficulty", topic="topic")
    return _checked(
        "", cell(row, "question"), cell(row, "final_answer"), row, found, row.values.get("r1_solution_1") or None
    )


def openthoughts(row: Row) -> Example:
    """`system` and `conversations`, or the `metadata` config: `problem`, `deepseek_reasoning`, `deepseek_solution`.

    Thought and solution are given in `<think>` form. The system text, which asks for the other form, is left out.
    """
    found = tags(row, domain="domain", source="source")
    if "problem" in row.values:
        thought, solution = text_cell(row, "deepseek_reasoning"), text_cell(row, "deepseek_solution")
        return Example(
            "",
            _words(cell(row, "problem")),
            response=_thinking(thought, solution) if thought.strip() and solution.strip() else None,
            tags=found,
        )
    asked, answered = _turns(cell(row, "conversations"), "from", "value")
    parts = _THOUGHT.fullmatch(answered.strip())
    if parts is None and "<|begin_of_thought|>" in answered:
        raise DataError("the solution is cut short", got=answered[-60:])
    return Example("", asked, response=_thinking(parts[1], parts[2]) if parts else answered, tags=found)


def openthoughts3(row: Row) -> Example:
    """`difficulty`, `source`, `domain`, `conversations`; solutions have `<think>` already."""
    asked, answered = _turns(cell(row, "conversations"), "from", "value")
    return Example("", asked, response=answered, tags=tags(row, domain="domain", source="source"))


def geometry3k(row: Row) -> Example:
    """`images`, `problem` with `<image>`, `answer`; newer revisions add `id`, `choices` and `ground_truth`."""
    return _checked(_name(row, "id"), cell(row, "problem"), cell(row, "answer"), row, images=cell(row, "images"))


def mmk12(row: Row) -> Example:
    """`id`, `question`, `answer`, `subject`, `image`."""
    found = tags(row, subject="subject")
    return _checked(_name(row, "id"), cell(row, "question"), cell(row, "answer"), row, found, images=cell(row, "image"))


def virl39k(row: Row) -> Example:
    r"""`question`, `answer` such as `\boxed{B}`, `image` (paths into `images.zip`), `category`, `source`, `qid`."""
    found = tags(row, category="category", source="source")
    return _checked(
        _name(row, "qid"), cell(row, "question"), cell(row, "answer"), row, found, images=cell(row, "image", "images")
    )


LAYOUTS: dict[str, Layout] = {
    "mixture_of_thoughts": Layout(
        "open-r1/Mixture-of-Thoughts", lambda config: [f"{config or 'all'}/train-*.parquet"], mixture_of_thoughts
    ),
    "orz57k": Layout(
        "Open-Reasoner-Zero/orz_math_57k_collection", lambda _: ["*57k*.json", "data/train-*.parquet"], orz57k
    ),
    "deepmath": Layout("zwhe99/DeepMath-103K", lambda _: ["data/train-*.parquet"], deepmath),
    "openthoughts": Layout(
        "open-thoughts/OpenThoughts-114k",
        lambda config: [f"{config}/train-*.parquet" if config else "data/train-*.parquet"],
        openthoughts,
    ),
    "openthoughts3": Layout("open-thoughts/OpenThoughts3-1.2M", lambda _: ["data/train-*.parquet"], openthoughts3),
    "geometry3k": Layout("hiyouga/geometry3k", lambda _: ["data/train-*.parquet"], geometry3k),
    "mmk12": Layout("FanqingM/MMK12", lambda _: ["data/train-*.parquet"], mmk12),
    "virl39k": Layout("TIGER-Lab/ViRL39K", lambda _: ["*.parquet", "images.zip"], virl39k),
}
"""Every training set by its `kind` in a recipe."""


def _checked(
    name: str,
    problem: Any,
    answer: Any,
    row: Row,
    found: Mapping[str, str] | None = None,
    response: str | None = None,
    images: Any = None,
) -> Example:
    """A problem with an answer and perhaps pictures.

    Raises:
        DataError: words or answer are missing, a picture cannot be read, or markers and pictures differ in number.
    """
    text = plain(_words(problem))
    reference = "" if answer is None else clean_gold(str(answer))
    if not reference:
        raise DataError("there is no answer", got=repr(answer)[:100])
    pictures = tuple(image_bytes(v, row.open_path) for v in image_values(images))
    count = text.count(IMAGE_MARKER)
    if count not in (0, len(pictures)):
        raise DataError("pictures and their markers differ in number", got=f"{len(pictures)} and {count}")
    letters = re.fullmatch(rf"\(?([{string.ascii_uppercase[:12]}])\)?[.:]?", reference)
    grader = "math"
    if letters and (listed(row.values.get("choices")) or _offers(text, letters[1])):
        reference, grader = letters[1], "choice"
    return Example(name, text, reference, grader, pictures, response, found or {})


def _offers(text: str, letter: str) -> bool:
    """Whether a problem has lettered options: A and B, and the one that is right, or none in words (in the picture)."""
    labels = set(re.findall(r"(?:^|[\s(:;,])([A-L])\s*[.:)\uff1a\uff0e\u3001]", text))
    return {"A", "B", letter} <= labels or (not labels and IMAGE_MARKER in text)


def _turns(turns: Any, who: str, what: str) -> tuple[str, str]:
    """What the user said first and what the assistant answered.

    Raises:
        DataError: they are not one of each, in that order.
    """
    names = {"human": "user", "gpt": "assistant"}
    said = [t for t in turns or [] if isinstance(t, dict) and t.get(who) != "system"]
    if [names.get(str(t.get(who)), t.get(who)) for t in said] != ["user", "assistant"]:
        raise DataError("this is not one question and one answer", got=f"turns of {[t.get(who) for t in said]}"[:100])
    return _words(said[0].get(what)), _words(said[1].get(what))


def _words(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError("there are no words where a problem or an answer should be", got=repr(value)[:60])
    return value.strip()


def _name(row: Row, column: str) -> str:
    value = row.values.get(column)
    return "" if value is None else str(value)


def _thinking(thought: str, solution: str) -> str:
    return f"<think>\n{thought.strip()}\n</think>\n\n{solution.strip()}"
