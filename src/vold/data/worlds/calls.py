"""Problems that a Python tool solves, with calls that fail: the demo world for tools.

A problem takes a function of two numbers and a second function of the result and a third number. The model calls the
tool for each; it writes the call into a fenced program, and the tool's answer follows. `max` and `min` are there from
the start. `gcd` and `lcm` have to be imported: a plain call ends in Python's own NameError, and has to be made again
with an import. The world's teacher tries the plain call first more often than not, and recovers.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vold.data.worlds.call_tokens import IMAGE, SPECIAL, VIDEO
from vold.types import Message, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.types import Rollout

Split = Literal["train", "select", "test"]

FUNCTIONS: dict[str, Callable[[int, int], int]] = {"max": max, "min": min, "gcd": math.gcd, "lcm": math.lcm}
"""Functions by name, as Python names them."""
IMPORTED = ("gcd", "lcm")
"""Those that a plain call does not find."""
SMALLEST, LARGEST, LARGEST_RESULT = 2, 12, 99
"""Numbers in a question, and the largest a result may be."""
HASTE = 0.6
"""How often the teacher makes a plain call where an import is needed."""
FENCE = "```"
WORDS = (
    "<|tool|>", "\\boxed{", "}", "?", "then", FENCE, "(", ")", ",", ";", "from", "math", "import", *FUNCTIONS,
    "Traceback", "(most", "recent", "call", "last):", "File", '"<program>",', "line", "1,", "in", "<module>",
    "NameError:", "SyntaxError:", "TypeError:", "ImportError:", "name", *(f"'{f}'" for f in FUNCTIONS),
    "is", "not", "defined", "(no", "output)",
)  # fmt: skip
"""Words of the world; numbers follow."""
VOCABULARY = (*WORDS, *map(str, range(LARGEST_RESULT + 1)))
"""All words, in the order of their ids."""
FAILED = len(SPECIAL) + len((IMAGE, VIDEO)) + WORDS.index('"<program>",')
"""Id of a word that stands in the answer to every call that fails, and in no other."""


@dataclass(frozen=True)
class Problem:
    """`second(first(a, b), c)`.

    Example:
        >>> p = Problem("lcm", 4, 6, "max", 9)
        >>> p.question, p.answer, p.failures
        ('lcm 4 6 then max 9 ?', 12, 1)
    """

    first: str
    a: int
    b: int
    second: str
    c: int

    @property
    def middle(self) -> int:
        """The first function's value."""
        return FUNCTIONS[self.first](self.a, self.b)

    @property
    def answer(self) -> int:
        """The reference answer."""
        return FUNCTIONS[self.second](self.middle, self.c)

    @property
    def question(self) -> str:
        """The question as it is asked."""
        return f"{self.first} {self.a} {self.b} then {self.second} {self.c} ?"

    @property
    def failures(self) -> int:
        """How many of its two functions a plain call does not find."""
        return sum(f in IMPORTED for f in (self.first, self.second))


def split_of(p: Problem) -> Split:
    """The split a problem belongs to, by its content: of twenty one is for selection, two are for the test."""
    names = tuple(FUNCTIONS)
    slot = hash((names.index(p.first), p.a, p.b, names.index(p.second), p.c)) % 20  # integers: the same everywhere
    return "select" if slot == 0 else "test" if slot in (1, 2) else "train"


def sample_problem(rng: random.Random) -> Problem:
    """Draw functions and numbers uniformly among problems whose results are small enough."""
    names = tuple(FUNCTIONS)
    while True:
        a, b, c = (rng.randint(SMALLEST, LARGEST) for _ in range(3))
        p = Problem(rng.choice(names), a, b, rng.choice(names), c)
        if max(p.middle, p.answer) <= LARGEST_RESULT:
            return p


def problems(split: Split, size: int, seed: int) -> list[Problem]:
    """`size` problems of one split, reproducible from `seed`."""
    rng = random.Random(f"calls/{split}/{seed}")
    out: list[Problem] = []
    while len(out) < size:
        p = sample_problem(rng)
        if split_of(p) == split:
            out.append(p)
    return out


def program(function: str, x: int, y: int, *, imports: bool) -> str:
    """A call as a turn of the model.

    Example:
        >>> program("gcd", 4, 6, imports=True)
        '``` from math import gcd ; gcd ( 4 , 6 ) ```'
    """
    plain = f"{function} ( {x} , {y} )"
    return f"{FENCE} {f'from math import {function} ; {plain}' if imports else plain} {FENCE}"


def error(function: str) -> str:
    """What Python says to a plain call of a function that has to be imported."""
    return (
        'Traceback (most recent call last):\n  File "<program>", line 1, in <module>\n'
        f"NameError: name '{function}' is not defined"
    )


def step(function: str, x: int, y: int, rng: random.Random) -> tuple[str, ...]:
    """The teacher's way to one value: turns of the model and answers of the tool by turns, the value last."""
    value = str(FUNCTIONS[function](x, y))
    if function not in IMPORTED:
        return program(function, x, y, imports=False), value
    recovered = program(function, x, y, imports=True), value
    hasty = rng.random() < HASTE
    return (program(function, x, y, imports=False), error(function), *recovered) if hasty else recovered


def solution(p: Problem, rng: random.Random) -> tuple[str, ...]:
    """A whole rollout of the teacher: the model's turns at even places, the tool's answers between them."""
    first = step(p.first, p.a, p.b, rng)
    return (*first, *step(p.second, p.middle, p.c, rng), f"\\boxed{{ {p.answer} }}")


def message(p: Problem) -> Message:
    """The question as a message."""
    return Message("user", p.question)


class CallTasks:
    """`size` problems of a split, graded by exact match; the tag `kind` says how many plain calls of it fail."""

    def __init__(self, split: Split, size: int, seed: int) -> None:
        self.split, self.seed = split, seed
        self.problems = problems(split, size, seed)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Task:
        p = self.problems[index]
        return Task(
            id=f"calls-{self.split}-{self.seed}-{index}",
            messages=(message(p),),
            reference=str(p.answer),
            grader="exact",
            teacher_messages=(message(p),),
            tags={"kind": ("none", "one", "two")[p.failures]},
        )


def before_failure(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """A weight for `teacher_advantage.weight`: 1 up to a rollout's first failed call, 0 after it. See TokenWeight."""
    out = []
    for rollout in rollouts:
        c = rollout.completion
        failed = [t for t, (i, own) in enumerate(zip(c.ids, c.action_mask, strict=True)) if i == FAILED and not own]
        end = min(failed, default=len(c.ids))
        out.append([float(t < end) for t in range(len(c.ids))])
    return out
