"""A world of tools that is long enough to drift: one value goes through six calls, and failures cascade.

A problem is a row of functions: `lcm 4 6 then max 9 then gcd 8 ... ?`. The interpreter keeps the value in `r` and what
was imported, and each call takes `r` from the one before it. A program that fails ends the interpreter: names and
imports are gone, so a model that goes on as if nothing had happened fails again, and again, until it writes the value
out. The teacher does so at once, after its own hasty calls; it was never in a state that two failures in a row lead to.

`Machine` reads programs by a pattern: nothing that a model writes is run. Words and ids of `vold.data.worlds.calls` are
kept, so that its mask and the measures of `experiments.drift` serve here too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from experiments.digits_models import TurnsRow, new_teacher, pretrain
from vold.data.sources import MOST, Source, Tasks
from vold.data.worlds.call_tokens import build_tokenizer
from vold.data.worlds.calls import FENCE, FUNCTIONS, IMPORTED, LARGEST, LARGEST_RESULT, SMALLEST, VOCABULARY, Split
from vold.engines.tools.environment import Turn
from vold.types import Message, Task

LENGTH = 6
"""Calls that a problem takes."""
HASTE = 0.3
"""How often the teacher calls a function that it has not imported."""
BATCH, STUDENT_STEPS, TEACHER_STEPS = 32, 800, 1500
"""Rows in a step of pre-training, and steps."""
WORDS = (*VOCABULARY, "r", "=", "'r'")
"""Words of this world: those of `calls`, with their ids, and three more."""
_PROGRAM = re.compile(
    rf"{FENCE} (?:from math import (?P<name>\w+) ; )?r = (?P<f>\w+) \( (?P<x>r|\d+) , (?P<y>\d+) \) {FENCE}"
)
Op = tuple[str, int]
"""A function and its second number."""


@dataclass(frozen=True)
class Problem:
    """The first number, and what is done to it.

    Example:
        >>> p = Problem(4, (("lcm", 6), ("max", 9)))
        >>> p.question, p.values, p.answer
        ('lcm 4 6 then max 9 ?', (12, 12), 12)
    """

    start: int
    ops: tuple[Op, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """What each call gives."""
        out = [self.start]
        for f, y in self.ops:
            out.append(FUNCTIONS[f](out[-1], y))
        return tuple(out[1:])

    @property
    def answer(self) -> int:
        """The last value."""
        return self.values[-1]

    @property
    def question(self) -> str:
        """The question as it is asked."""
        (f, y), *rest = self.ops
        return " then ".join([f"{f} {self.start} {y}", *(f"{g} {z}" for g, z in rest)]) + " ?"


def sample_problem(rng: random.Random, length: int = LENGTH, names: Sequence[str] = tuple(FUNCTIONS)) -> Problem:
    """Draw one, all values from 2 to 99; a function never does nothing."""
    start = value = rng.randint(SMALLEST, LARGEST)
    ops: list[Op] = []
    while len(ops) < length:
        f, y = rng.choice(names), rng.randint(SMALLEST, LARGEST)
        result = FUNCTIONS[f](value, y)
        if SMALLEST <= result <= LARGEST_RESULT and (result != value or rng.random() < 0.2):
            ops.append((f, y))
            value = result
    return Problem(start, tuple(ops))


def split_of(p: Problem) -> Split:
    """By content, as in `calls`: of twenty one is for selection, two are for the test."""
    names = tuple(FUNCTIONS)
    slot = hash((p.start, *((names.index(f), y) for f, y in p.ops))) % 20
    return "select" if slot == 0 else "test" if slot in (1, 2) else "train"


def program(f: str, y: int, x: int | str = "r", *, imports: bool) -> str:
    """A call as a turn of the model.

    Example:
        >>> program("gcd", 6, imports=True)
        '``` from math import gcd ; r = gcd ( r , 6 ) ```'
    """
    return f"{FENCE} {f'from math import {f} ; ' if imports else ''}r = {f} ( {x} , {y} ) {FENCE}"


def error(name: str) -> str:
    """What an interpreter says as it ends."""
    return f"File \"<program>\", NameError: name '{name}' is not defined"


class Machine:
    """Interpreters, one a rollout: a turn is answered with the new value or what went wrong, None without a program."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """`settings` are those of the recipe's `environment`; there are none."""

    def observe(self, turns: Sequence[Turn]) -> list[str | None]:
        """What follows each turn."""
        return [self._ran(turn) if FENCE in turn else None for turn in turns]

    def _ran(self, turn: Turn) -> str:
        asked, held = _PROGRAM.fullmatch(turn.strip()), turn.state
        if asked is None or asked["f"] not in FUNCTIONS or asked["name"] not in (None, *IMPORTED):
            held.clear()
            return 'File "<program>", SyntaxError:'
        f, x = asked["f"], asked["x"]
        known = {*held.get("imported", ()), asked["name"]}
        unset = "r" if x == "r" and "r" not in held else None
        missing = f if f in IMPORTED and f not in known else unset
        value = 0 if missing else FUNCTIONS[f](held["r"] if x == "r" else int(x), int(asked["y"]))
        if missing or value > LARGEST_RESULT:
            held.clear()
            return error(missing) if missing else 'File "<program>", TypeError:'
        held.update(imported=known, r=value)
        return str(value)


def solution(p: Problem, rng: random.Random, haste: float = HASTE) -> tuple[str, ...]:
    """A whole rollout of the teacher: the model's turns at even places, the answers between them."""
    out: list[str] = []
    known: set[str] = set()
    x: int | str = p.start
    for (f, y), before, value in zip(p.ops, (p.start, *p.values), p.values, strict=False):
        new = f in IMPORTED and f not in known
        if new and rng.random() < haste:
            out += [program(f, y, x, imports=False), error(f)]
            known, x = set(), before
        out += [program(f, y, x, imports=new), str(value)]
        known |= {f} if new else set()
        x = "r"
    return (*out, f"\\boxed{{ {p.answer} }}")


class ChainTasks:
    """`size` problems of a split, graded by exact match."""

    def __init__(self, split: Split, size: int, seed: int) -> None:
        self.split, self.seed = split, seed
        rng = random.Random(f"chain/{split}/{seed}")
        self.problems: list[Problem] = []
        while len(self.problems) < size:
            if split_of(p := sample_problem(rng)) == split:
                self.problems.append(p)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Task:
        p = self.problems[index]
        asked = (Message("user", p.question),)
        return Task(
            id=f"chain-{self.split}-{self.seed}-{index}",
            messages=asked,
            reference=str(p.answer),
            grader="exact",
            teacher_messages=asked,
        )


class Spec(Source):
    """`kind: "experiments.chain:Spec"`: problems of this world, whose environment is `experiments.chain:Machine`."""

    split: Split
    """Splits share no problem."""
    size: int = Field(gt=0, le=MOST)
    """How many problems."""
    seed: int = 0
    """Which problems."""

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems; all have references."""
        return Tasks(ChainTasks(self.split, self.size, self.seed), f"chain/{self.split}")


def student_rows(rng: random.Random) -> list[TurnsRow]:
    """One batch of one to three calls that succeed, of functions that need no import."""
    names = [f for f in FUNCTIONS if f not in IMPORTED]
    problems = [sample_problem(rng, rng.randint(1, 3), names) for _ in range(BATCH)]
    return [([Message("user", p.question)], solution(p, rng)) for p in problems]


def teacher_rows(rng: random.Random) -> list[TurnsRow]:
    """One batch of solved problems of the training split."""
    rows: list[TurnsRow] = []
    while len(rows) < BATCH:
        if split_of(p := sample_problem(rng)) == "train":
            rows.append(([Message("user", p.question)], solution(p, rng)))
    return rows


def student(out: Path, steps: int = STUDENT_STEPS) -> None:
    """Make the student, of 0.2M parameters, and save it as `out`."""
    policy = new_teacher(1, build_tokenizer(WORDS), width=64, layers=3)
    pretrain(policy, student_rows, steps=steps, lr=3e-3, seed=1)
    policy.save(out)


def teacher(out: Path, steps: int = TEACHER_STEPS) -> None:
    """Make the teacher, of 0.4M parameters, and save it as `out`."""
    policy = new_teacher(2, build_tokenizer(WORDS), width=96, layers=3)
    pretrain(policy, teacher_rows, steps=steps, lr=3e-3, seed=2)
    policy.save(out)
