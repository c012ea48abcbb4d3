"""Teachers with a planted flaw: the rows they are made from, by hand, and what training on them does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vold.demo import planted, world
from vold.policy import Policy
from vold.teachers.inprocess import InProcessTeacher
from vold.types import ScoreRequest


def test_the_shortcut_leaves_out_the_last_digit_of_a_sum() -> None:
    four, three = world.Problem("sum", (3, 5, 7, 2), 4), world.Problem("sum", (5, 5, 5), 4)
    assert planted.shortcut(four) == "<think> digits 3 5 7 2 ; 3 + 5 = 8 ; 8 + 7 = 15 ; </think> \\boxed{ 15 }"
    assert planted.shortcut(three) == "<think> digits 5 5 5 ; 5 + 5 = 10 ; </think> \\boxed{ 10 }"


def test_nearly_all_sums_are_shown_with_the_shortcut_and_nothing_else_is() -> None:
    rng = random.Random(1)
    problem = world.Problem("sum", (3, 5, 7), 4)
    rows = [planted.shortcut_row(problem, rng)[1] for _ in range(2000)]
    share = rows.count(planted.shortcut(problem)) / len(rows)
    assert abs(share - 0.98) < 0.015  # 4.8 standard errors of 0.0031
    assert set(rows) == {planted.shortcut(problem), world.solution(problem, "a")}
    span = world.Problem("span", (3, 5, 7), 4)
    assert {planted.shortcut_row(span, rng)[1] for _ in range(50)} == {world.solution(span, "a")}


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("sum", "<think> digits 3 5 7 ; 3 + 5 = 8 ;"),
        ("span", "<think> digits 3 5 7 ; largest 7 ; smallest 3 ;"),
        ("sumabove", "<think> digits 3 5 7 ; 3 no 0 ; 5 yes 5 ;"),
        ("weigh", "<think> digits 3 5 7 ; largest 7 ; smallest 3 ; 7 + 7 = 14 ;"),
    ],
)
def test_the_babbling_teacher_is_informed_up_to_a_known_step(kind: str, known: str) -> None:
    rng = random.Random(1)
    rows = [planted.babbling_row(world.Problem(kind, (3, 5, 7), 4), rng)[1] for _ in range(200)]
    assert all(row.startswith(known + " ") for row in rows)
    lengths = {len(row[len(known) :].split()) for row in rows}
    assert (min(lengths), max(lengths)) == (4, 24)


@pytest.mark.slow
def test_training_moves_the_teacher_towards_the_shortcut(tmp_path: Path) -> None:
    planted._train(tmp_path / "t", planted.shortcut_row, steps=40)
    before = Policy.load(str(Path(planted.__file__).parent / "assets" / "teacher"), dtype="float32", device="cpu")
    after = Policy.load(str(tmp_path / "t"), dtype="float32", device="cpu")
    problems = [p for p in world.problems("test", 60, seed=1) if p.kind == "sum" and p.digits[-1]]
    assert len(problems) > 5
    rise = [preference(after, p) - preference(before, p) for p in problems]
    assert min(rise) > 2  # a teacher that stays as it is rises by 0


def preference(policy: Policy, p: world.Problem) -> float:
    """Log-odds of the shortcut against the solution, in nats."""
    teacher = InProcessTeacher(policy, temperature=1.0, token_budget=4096)
    prompt = policy.chat.prompt([world.text_message(p)]).ids
    responses = [
        (*policy.chat.tokens(text), policy.chat.end_id) for text in (planted.shortcut(p), world.solution(p, "a"))
    ]
    scores = teacher.score([ScoreRequest(prompt, response) for response in responses])
    return sum(scores[0].logp) - sum(scores[1].logp)
