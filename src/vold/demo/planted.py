"""Teachers of the demo world with a planted flaw, for studies whose right answer is known beforehand.

Each is the demo world's teacher, trained on over rows in which the flaw is planted:

* `shortcut_teacher` prefers a confident wrong shortcut on one kind of question: it leaves the last digit out of a sum.
  Its rewards are at odds with the outcome there, since a wrong rollout that takes the shortcut is likelier to it than a
  right one.
* `babbling_teacher` solves problems like the demo teacher up to a known step, and writes random words after it. From
  there on it has nothing to say about any continuation.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

from vold.demo import world
from vold.demo.build import Row, facts, pretrain, training_problem
from vold.demo.tokens import NUMBERS, WORDS
from vold.models import resolve
from vold.policy import Policy

STEPS = 300
"""Training steps on top of the demo teacher's."""
PREFERENCE = 0.9
"""Share of sums that the shortcut teacher is shown with the shortcut; the others are shown solved."""
LAST_INFORMED = {"sum": 2, "span": 3, "sumabove": 3, "weigh": 4, "count": 3}
"""Steps, the repeated digits being the first, after which the babbling teacher babbles, by kind of question."""
BABBLE = tuple(w for w in (*WORDS, *NUMBERS) if w not in ("<think>",))
"""What it babbles."""


def shortcut(p: world.Problem) -> str:
    """A worked sum without its last digit, in style `a`: one step short, and wrong unless that digit is 0."""
    less = world.Problem(p.kind, p.digits[:-1], p.k)
    return world.solution(less, "a").replace(f"digits {less.digit_words}", f"digits {p.digit_words}", 1)


def shortcut_row(p: world.Problem, rng: random.Random) -> Row:
    """A question with the shortcut teacher's answer."""
    takes_it = p.kind == "sum" and rng.random() < PREFERENCE
    return [world.text_message(p)], shortcut(p) if takes_it else world.solution(p, "a")


def babbling_row(p: world.Problem, rng: random.Random) -> Row:
    """A question with the babbling teacher's answer: `LAST_INFORMED` steps of a solution, then 4 to 24 random words."""
    known = " ; ".join(world.solution(p, "a").split(" ; ")[: LAST_INFORMED[p.kind]])
    return [world.text_message(p)], " ".join([known, ";", *rng.choices(BABBLE, k=rng.randint(4, 24))])


def shortcut_teacher(out: Path) -> None:
    """Make the shortcut teacher and save it as `out`."""
    _train(out, shortcut_row)


def babbling_teacher(out: Path) -> None:
    """Make the babbling teacher and save it as `out`."""
    _train(out, babbling_row)


def _train(out: Path, row: Callable[[world.Problem, random.Random], Row], steps: int = STEPS) -> None:
    policy = Policy.load(resolve("demo:teacher"), dtype="float32", device="cpu")
    pretrain(policy, functools.partial(_rows, row), steps=steps, lr=1e-3, seed=4)
    policy.save(out)


def _rows(row: Callable[[world.Problem, random.Random], Row], rng: random.Random) -> list[Row]:
    answers = [row(training_problem(rng), rng) for _ in range(48)]
    return answers + [([], facts(rng, "a")) for _ in range(8)]
