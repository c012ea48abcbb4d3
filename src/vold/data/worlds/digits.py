"""Problems over a row of digits, in a text form and an image form.

A problem is a row of 3 or 4 digits and a question that needs several steps. The text form writes the digits; the
image form shows them as real handwriting (8x8 digits, eight pixels a side each, in one picture). The
two forms differ in nothing else, so a rollout on the one is an answer to the other.

Handwriting comes in three parts that share no image: the data set is ordered by writer, its last 500 images are the
`select` part (150) and the `test` part (350), and nothing in this project trains on either. `digits.md` says where it
comes from.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vold.types import Message, Task

Form = Literal["text", "image"]
Split = Literal["train", "select", "test"]
Style = Literal["a", "b"]

KINDS = ("sum", "span", "sumabove", "weigh")
"""Kinds of question the world asks."""
KNOWN_KINDS = ("sum", "span", "count", "sumabove", "weigh")
"""Kinds the models were pre-trained on: `count` is not asked, since the base student needs no steps for it."""
QUESTIONS = {
    "sum": "sum ?",
    "span": "span ?",
    "count": "count above {k} ?",
    "sumabove": "sum above {k} ?",
    "weigh": "twice largest plus smallest ?",
}
ROWS = (3, 4)
"""Fewest and most digits of a row, unless a task set says otherwise."""
SIDE = 8
"""Pixels on each side of one digit."""
HANDWRITING = Path(__file__).with_name("digits.npz")
"""uint8 arrays `images` (1797, 8, 8), ink from 0 to 16, and `labels` (1797), by writer."""
SELECT_IMAGES, TEST_IMAGES = 150, 350
"""How many images at the end of the data set are kept for choosing settings, and then for the test."""


@dataclass(frozen=True)
class Problem:
    """A row of digits, a kind of question and the threshold `k` that two of the kinds use.

    Example:
        >>> Problem("sumabove", (3, 5, 7), 4).answer
        12
    """

    kind: str
    digits: tuple[int, ...]
    k: int

    @property
    def answer(self) -> int:
        """The reference answer."""
        d = self.digits
        match self.kind:
            case "sum":
                return sum(d)
            case "span":
                return max(d) - min(d)
            case "count":
                return sum(x > self.k for x in d)
            case "sumabove":
                return sum(x for x in d if x > self.k)
            case _:
                return 2 * max(d) + min(d)

    @property
    def question(self) -> str:
        """The question as it is asked in both forms."""
        return QUESTIONS[self.kind].format(k=self.k)

    @property
    def digit_words(self) -> str:
        """The digits as text, blank-separated."""
        return " ".join(map(str, self.digits))


def sample_problem(rng: random.Random, longest: int = 4, kinds: tuple[str, ...] = KINDS, shortest: int = 3) -> Problem:
    """Draw a problem: kind, length `shortest` to `longest`, digits and threshold, all uniform."""
    kind = rng.choice(kinds)
    return Problem(kind, tuple(rng.randint(0, 9) for _ in range(rng.randint(shortest, longest))), rng.randint(2, 6))


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to, decided by its content: the three never share a row of digits.

    Of every twenty rows one is for selection, two are for the test and the rest for training.
    """
    slot = hash(problem.digits) % 20  # hashes of tuples of small integers are the same in every process
    return "select" if slot == 0 else "test" if slot in (1, 2) else "train"


def problems(
    split: Split, size: int, seed: int, kinds: tuple[str, ...] = KINDS, rows: tuple[int, int] = ROWS
) -> list[Problem]:
    """`size` problems of one split, of rows with so many digits at least and at most, reproducible from `seed`."""
    rng = random.Random(f"digits/{split}/{seed}")
    out: list[Problem] = []
    while len(out) < size:
        p = sample_problem(rng, rows[1], kinds, rows[0])
        if split_of(p) == split:
            out.append(p)
    return out


def trace(p: Problem, style: Style) -> str:
    """The worked solution that a teacher of this style is trained to give, without the final answer.

    Style `a` first repeats the digits, then works from left to right. Style `b` works from right to left in other
    words and repeats nothing.
    """
    steps: list[str] = []
    d = p.digits if style == "a" else p.digits[::-1]
    plus, minus, equal, yes, no, big, small = (
        ("+", "-", "=", "yes", "no", "largest", "smallest")
        if style == "a"
        else ("and", "less", "gives", "take", "skip", "top", "bottom")
    )
    total = d[0]
    match p.kind:
        case "sum":
            for x in d[1:]:
                steps.append(f"{total} {plus} {x} {equal} {total + x}")
                total += x
        case "span":
            steps += [f"{big} {max(d)}", f"{small} {min(d)}", f"{max(d)} {minus} {min(d)} {equal} {max(d) - min(d)}"]
        case "count" | "sumabove":
            total = 0
            for x in d:
                total += (x if p.kind == "sumabove" else 1) if x > p.k else 0
                steps.append(f"{x} {yes if x > p.k else no} {total}")
        case _:
            twice = 2 * max(d)
            steps += [f"{big} {max(d)}", f"{small} {min(d)}", f"{max(d)} {plus} {max(d)} {equal} {twice}"]
            steps.append(f"{twice} {plus} {min(d)} {equal} {twice + min(d)}")
    if style == "a":
        return " ; ".join([f"digits {p.digit_words}", *steps, ""]).strip()
    return " , ".join(["so", *steps, ""]).strip()


def solution(p: Problem, style: Style) -> str:
    """A whole response: thinking block, then the boxed answer."""
    return f"<think> {trace(p, style)} </think> {direct(p)}"


def direct(p: Problem) -> str:
    """A whole response without thinking."""
    return f"\\boxed{{ {p.answer} }}"


def text_message(p: Problem) -> Message:
    """The text form of the question."""
    return Message("user", f"digits {p.digit_words} . {p.question}")


def image_message(p: Problem, image: Image.Image) -> Message:
    """The image form of the question."""
    return Message("user", f"digits <image> . {p.question}", (image,))


@functools.cache
def handwriting() -> dict[Split, tuple[tuple[np.ndarray, ...], ...]]:
    """For each part, a tuple of 8x8 uint8 images for each digit 0..9 (white ink on black)."""
    with np.load(HANDWRITING, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    pixels = (images * (255.0 / 16.0)).round().astype(np.uint8)
    test = len(pixels) - TEST_IMAGES
    select = test - SELECT_IMAGES
    parts: dict[Split, range] = {
        "train": range(select),
        "select": range(select, test),
        "test": range(test, len(pixels)),
    }
    return {
        part: tuple(tuple(pixels[i] for i in rows if labels[i] == digit) for digit in range(10))
        for part, rows in parts.items()
    }


def draw(digits: tuple[int, ...], part: Split, rng: random.Random) -> Image.Image:
    """One RGB picture, 8 pixels high, with the digits from left to right in handwriting of that part."""
    bank = handwriting()[part]
    return Image.fromarray(np.hstack([rng.choice(bank[x]) for x in digits])).convert("RGB")


class DigitTasks:
    """`size` problems of a split in one form, as tasks graded by exact match.

    An image task of a split is drawn in that split's handwriting. Problem `i` of a split and seed is the same in both
    forms.
    """

    def __init__(self, split: Split, form: Form, size: int, seed: int, rows: tuple[int, int] = ROWS) -> None:
        self.split, self.form, self.seed = split, form, seed
        self.problems = problems(split, size, seed, rows=rows)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Task:
        p = self.problems[index]
        message = text_message(p)
        if self.form == "image":
            rng = random.Random(f"handwriting/{self.split}/{self.seed}/{index}")
            message = image_message(p, draw(p.digits, self.split, rng))
        return Task(
            id=f"digits-{self.split}-{self.seed}-{index}",
            messages=(message,),
            reference=str(p.answer),
            grader="exact",
            teacher_messages=(text_message(p),),
            tags={"kind": p.kind, "digits": str(len(p.digits))},
            shows=f"digits {p.digit_words}" if self.form == "image" else "",
        )
