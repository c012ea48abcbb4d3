"""Teachers of the demo world with a planted flaw, for studies whose right answer is known beforehand.

Each is the demo world's teacher, trained on over rows in which the flaw is planted:

* `shortcut_teacher` prefers a confident wrong shortcut on one kind of question: it leaves the last digit out of a sum.
  Its rewards are at odds with the outcome there, since a wrong rollout that takes the shortcut is likelier to it than a
  right one.
* `undecided_teacher` takes that shortcut every other time. It writes the cold start of a student that has both ways.
* `babbling_teacher` solves problems like the demo teacher up to a known step, and writes random words after it. From
  there on it has nothing to say about any continuation.
* `some_shortcuts_20`, `_50` and `_80` prefer the shortcut in sums whose first digit is below 2, 5 and 8, and solve the
  others: at odds with the outcome in that share of sums.
* `fading_teacher` becomes less informed with every step: the form stays, and each number is drawn at random with a
  probability that grows by `FADING` a step.
* `guessing_teacher` does so with the form kept: after that step it writes a solution's words, with random numbers. From
  there on it knows how a solution goes on and nothing about this one.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.digits_models import Row, facts, pretrain, training_problem
from vold.data.worlds import digits as world
from vold.data.worlds.call_tokens import NUMBERS, WORDS
from vold.model.policy import Policy
from vold.objective.prefix_teach import segment_spans
from vold.run.files import read_jsonl
from vold.run.rollouts import load_rollouts, rollout_files
from vold.run.shipped import resolve
from vold.types import Rollout

STEPS = 300
"""Training steps on top of the demo teacher's."""
PREFERENCE = 0.9
"""Share of sums that the shortcut teacher is shown with the shortcut; the others are shown solved."""
LAST_INFORMED = {"sum": 2, "span": 3, "sumabove": 3, "weigh": 4, "count": 3}
"""Steps, the repeated digits being the first, after which babbling and guessing begin, by kind of question."""
STEP_END = "[;,]|</think>"
"""What ends a step of a solution, as a regular expression: `prefix.boundary` of the studies."""
BABBLE = tuple(w for w in (*WORDS, *NUMBERS) if w not in ("<think>",))
"""What is babbled."""
GUESSES = NUMBERS[:37]
"""Numbers that are guessed: those a sum of four digits can be."""
FADING = 0.2
"""How much likelier a random number becomes to the fading teacher from one step to the next, the first having none."""
PREFIXES = {"quarter": 0.25, "half": 0.5, "three_quarters": 0.75}
"""Shares of a response that fixed prefixes teach, by what stands behind `first_` in the name of the function."""


def shortcut(p: world.Problem) -> str:
    """A worked sum without its last digit, in style `a`: one step short, and wrong unless that digit is 0."""
    less = world.Problem(p.kind, p.digits[:-1], p.k)
    return world.solution(less, "a").replace(f"digits {less.digit_words}", f"digits {p.digit_words}", 1)


def shortcut_row(p: world.Problem, rng: random.Random, share: float = PREFERENCE) -> Row:
    """A question with its answer, which is the shortcut in this share of sums."""
    takes_it = p.kind == "sum" and rng.random() < share
    return [world.text_message(p)], shortcut(p) if takes_it else world.solution(p, "a")


def babbling_row(p: world.Problem, rng: random.Random) -> Row:
    """A question with the babbling teacher's answer: `LAST_INFORMED` steps of a solution, then 4 to 24 random words."""
    known = " ; ".join(world.solution(p, "a").split(" ; ")[: LAST_INFORMED[p.kind]])
    return [world.text_message(p)], " ".join([known, ";", *rng.choices(BABBLE, k=rng.randint(4, 24))])


def guessing_row(p: world.Problem, rng: random.Random) -> Row:
    """A question with the guessing teacher's answer: after `LAST_INFORMED` steps, every number and every yes or no is
    drawn at random."""
    steps, known = world.solution(p, "a").split(" ; "), LAST_INFORMED[p.kind]
    return [world.text_message(p)], " ; ".join([*steps[:known], *(_guessed(step, rng) for step in steps[known:])])


def fading_row(p: world.Problem, rng: random.Random) -> Row:
    """A question with the fading teacher's answer: in step k, counted from 0, numbers, yes and no are drawn at random
    with probability k * `FADING`."""
    steps = world.solution(p, "a").split(" ; ")
    return [world.text_message(p)], " ; ".join(_guessed(step, rng, k * FADING) for k, step in enumerate(steps))


def _guessed(step: str, rng: random.Random, share: float = 1.0) -> str:
    """A step with this share of its numbers, yes and no drawn at random."""
    drawn = {"yes": ("yes", "no"), "no": ("yes", "no")} | dict.fromkeys(NUMBERS, GUESSES)
    return " ".join(rng.choice(drawn[w]) if w in drawn and rng.random() < share else w for w in step.split(" "))


def some_shortcuts_row(p: world.Problem, rng: random.Random, below: int) -> Row:
    """As `shortcut_row` for rows whose first digit is below this, else a solution."""
    return shortcut_row(p, rng, PREFERENCE if p.digits[0] < below else 0.0)


def shortcut_teacher(out: Path) -> None:
    """Make the shortcut teacher and save it as `out`."""
    _train(out, shortcut_row)


def undecided_teacher(out: Path) -> None:
    """Make the undecided teacher and save it as `out`."""
    _train(out, functools.partial(shortcut_row, share=0.5))


def babbling_teacher(out: Path) -> None:
    """Make the babbling teacher and save it as `out`."""
    _train(out, babbling_row)


def guessing_teacher(out: Path) -> None:
    """Make the guessing teacher and save it as `out`."""
    _train(out, guessing_row)


def fading_teacher(out: Path) -> None:
    """Make the fading teacher and save it as `out`."""
    _train(out, fading_row)


def some_shortcuts_20(out: Path) -> None:
    """Make the teacher with the shortcut in a fifth of sums and save it as `out`."""
    _train(out, functools.partial(some_shortcuts_row, below=2))


def some_shortcuts_50(out: Path) -> None:
    """Make the teacher with the shortcut in half of all sums and save it as `out`."""
    _train(out, functools.partial(some_shortcuts_row, below=5))


def some_shortcuts_80(out: Path) -> None:
    """Make the teacher with the shortcut in four fifths of sums and save it as `out`."""
    _train(out, functools.partial(some_shortcuts_row, below=8))


def first_quarter(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """A weight for `teacher_advantage.weight`: 1 on the first quarter of a response, 0 behind it."""
    return [_prefix(len(r.completion.ids), PREFIXES["quarter"]) for r in rollouts]


def first_half(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """As `first_quarter`, of half."""
    return [_prefix(len(r.completion.ids), PREFIXES["half"]) for r in rollouts]


def first_three_quarters(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """As `first_quarter`, of three quarters."""
    return [_prefix(len(r.completion.ids), PREFIXES["three_quarters"]) for r in rollouts]


def _prefix(length: int, share: float) -> list[float]:
    return [float(t < share * length) for t in range(length)]


def _train(out: Path, row: Callable[[world.Problem, random.Random], Row], steps: int = STEPS) -> None:
    policy = Policy.load(resolve("demo:teacher"), dtype="float32", device="cpu")
    pretrain(policy, functools.partial(_rows, row), steps=steps, lr=1e-3, seed=4)
    policy.save(out)


def _rows(row: Callable[[world.Problem, random.Random], Row], rng: random.Random) -> list[Row]:
    answers = [row(training_problem(rng), rng) for _ in range(48)]
    return answers + [([], facts(rng, "a")) for _ in range(8)]


def misranked_sums(stage: Path) -> dict[str, Any] | None:
    """Of all pairs of a right and a wrong rollout of the same sum: the share in which the teacher's mean reward of the
    wrong one is higher. Read off the stored rollouts; None if no teacher was asked."""
    return _misranked(stage, planted=True)


def misranked_others(stage: Path) -> dict[str, Any] | None:
    """As `misranked_sums`, of all other kinds of question."""
    return _misranked(stage, planted=False)


def _misranked(stage: Path, *, planted: bool) -> dict[str, Any] | None:
    found: list[bool] = []
    for rows in _stored(stage):
        sides: dict[int, tuple[list[float], list[float]]] = {}
        for row in rows:
            if row["teacher_logp"] is not None and (_kind(row) == "sum") == planted:
                rewards = [t - s for t, s in zip(row["teacher_logp"], row["logp"], strict=True)]
                wrong, right = sides.setdefault(row["group"], ([], []))
                (right if row["score"] >= 1 else wrong).append(sum(rewards) / len(rewards))
        found += [w > r for wrong, right in sides.values() for w in wrong for r in right]
    return {"accuracy": sum(found) / len(found), "n": len(found)} if found else None


def cut_distance(stage: Path) -> dict[str, Any] | None:
    """How far from the planted step the teacher's supervision was cut, over all stored rollouts of solved problems, in
    steps; `whole` where it was not cut. Its accuracy is the share of 0. None without cuts.

    Rollouts with a wrong answer may leave the form that the planted step refers to, so they do not count.
    """
    counts: dict[str, int] = {}
    for rows in _stored(stage):
        for row in rows:
            if "cut" in row["rollout_values"] and row["score"] >= 1:
                found = _cut_step(row)
                name = "whole" if found is None else f"{found - LAST_INFORMED[_kind(row)]:d}"
                counts[name] = counts.get(name, 0) + 1
    total = sum(counts.values())
    return {"accuracy": counts.get("0", 0) / total, "n": total, "counts": counts} if total else None


def cut_at(stage: Path) -> dict[str, Any] | None:
    """After how many steps the teacher's supervision was cut, over all stored rollouts; `whole` where it was not. Its
    accuracy is the share that was cut. None without cuts."""
    found = [_cut_step(row) for rows in _stored(stage) for row in rows if "cut" in row["rollout_values"]]
    counts = Counter("whole" if step is None else f"{step:d}" for step in found)
    share = sum(step is not None for step in found) / max(1, len(found))
    return {"accuracy": share, "n": len(found), "counts": dict(counts)} if found else None


def taught_tokens(stage: Path) -> dict[str, Any] | None:
    """Thousands of tokens that the teacher's supervision reached, over all steps of a run; None without a teacher.

    Of a fixed prefix that is its share of all tokens."""
    recipe = stage / "recipe.yaml"
    fixed = re.search(r"planted:first_(\w+)", recipe.read_text("utf-8")) if recipe.exists() else None
    share = PREFIXES[fixed[1]] if fixed else 1.0
    rows = [r for r in read_jsonl(stage / "metrics.jsonl") if r.get("teacher_tokens")]
    taught = sum(r["teacher_tokens"] * r.get("mean_prefix", 1.0) for r in rows)
    return {"value": share * taught / 1000} if rows else None


def _stored(stage: Path) -> list[list[dict[str, Any]]]:
    return [[s.row() for s in load_rollouts(file)] for file in rollout_files(stage / "rollouts").values()]


def _kind(row: dict[str, Any]) -> str:
    question = row["prompt"].partition(" . ")[2]
    return next(k for k, q in world.QUESTIONS.items() if question in {q.format(k=t) for t in range(10)})


def _cut_step(row: dict[str, Any]) -> int | None:
    """Steps before the cut; None where the response was left whole."""
    cut = row["rollout_values"]["cut"]
    spans = segment_spans(row["tokens"], STEP_END)
    return None if cut >= len(row["tokens"]) else sum(span.stop <= cut for span in spans)
