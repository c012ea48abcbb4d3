"""What layouts of published training sets have in common: how what stands in a row becomes a problem.

A row that has no problem, no answer where its set has answers, or pictures that do not fit its text raises `DataError`
and is left out by the caller. Columns that no stage reads are passed over.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vold.data.files.cells import clean_gold, listed
from vold.data.files.images import image_bytes, image_values
from vold.data.files.markers import plain
from vold.errors import DataError
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.data.files.read import Row

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""Asks for what the graders read: the words that Qwen's models are evaluated with."""


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


def checked(
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
    text = plain(worded(problem))
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


def question_and_answer(turns: Any, who: str, what: str) -> tuple[str, str]:
    """What the user said first and what the assistant answered.

    Raises:
        DataError: they are not one of each, in that order.
    """
    names = {"human": "user", "gpt": "assistant"}
    said = [t for t in turns or [] if isinstance(t, dict) and t.get(who) != "system"]
    if [names.get(str(t.get(who)), t.get(who)) for t in said] != ["user", "assistant"]:
        raise DataError("this is not one question and one answer", got=f"turns of {[t.get(who) for t in said]}"[:100])
    return worded(said[0].get(what)), worded(said[1].get(what))


def worded(value: Any) -> str:
    """A text without blanks around it.

    Raises:
        DataError: there is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError("there are no words where a problem or an answer should be", got=repr(value)[:60])
    return value.strip()


def own_id(row: Row, column: str) -> str:
    """What a set calls this row; "" where it does not say."""
    value = row.values.get(column)
    return "" if value is None else str(value)


def thinking(thought: str, solution: str) -> str:
    """Thought and solution as the models of this project write them."""
    return f"<think>\n{thought.strip()}\n</think>\n\n{solution.strip()}"
