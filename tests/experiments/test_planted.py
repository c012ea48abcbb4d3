"""Teachers with a planted flaw: the rows they are made from, by hand, and what training on them does."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from experiments import planted
from stored import store_rows
from vold.data.worlds import digits as world
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.model.policy import Policy
from vold.run.files import write_text
from vold.run.shipped import resolve
from vold.types import ScoreRequest


def test_the_shortcut_leaves_out_the_last_digit_of_a_sum() -> None:
    four, three = world.Problem("sum", (3, 5, 7, 2), 4), world.Problem("sum", (5, 5, 5), 4)
    assert planted.shortcut(four) == "<think> digits 3 5 7 2 ; 3 + 5 = 8 ; 8 + 7 = 15 ; </think> \\boxed{ 15 }"
    assert planted.shortcut(three) == "<think> digits 5 5 5 ; 5 + 5 = 10 ; </think> \\boxed{ 10 }"


def test_nine_sums_in_ten_are_shown_with_the_shortcut_and_nothing_else_is() -> None:
    rng = random.Random(1)
    problem = world.Problem("sum", (3, 5, 7), 4)
    rows = [planted.shortcut_row(problem, rng)[1] for _ in range(2000)]
    share = rows.count(planted.shortcut(problem)) / len(rows)
    assert abs(share - 0.9) < 0.03  # 4.5 standard errors of 0.0067
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
    before = Policy.load(resolve("demo:teacher"), dtype="float32", device="cpu")
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


def stored(stage: Path, *rows: dict[str, object]) -> Path:
    store_rows(stage / "rollouts", 0, list(rows))
    return stage


def scored(group: int, score: float, reward: float, question: str = "sum ?") -> dict[str, object]:
    """A rollout of two tokens whose mean teacher reward is `reward`."""
    logps = {"logp": [-1.0, -0.5], "teacher_logp": [-1.0 + 2 * reward, -0.5]}
    return {"prompt": f"digits 1 2 3 . {question}", "group": group, "score": score, **logps}


def test_pairs_that_the_teacher_misranks_are_counted_within_a_group(tmp_path: Path) -> None:
    stage = stored(
        tmp_path,
        scored(0, 1.0, -0.3),
        scored(0, 1.0, 0.1),
        scored(0, 0.0, -0.1),  # above one of the two right ones
        scored(1, 0.0, 0.5),  # alone in its group: no pair
        scored(2, 1.0, 0.0, "span ?"),
        scored(2, 0.0, 0.2, "span ?"),
        {**scored(3, 1.0, 0.0), "teacher_logp": None},
        {**scored(3, 0.0, 0.9), "teacher_logp": None},
    )
    assert planted.misranked_sums(stage) == {"accuracy": 0.5, "n": 2}
    assert planted.misranked_others(stage) == {"accuracy": 1.0, "n": 1}
    assert planted.misranked_sums(stored(tmp_path / "none", scored(0, 1.0, 0.0))) is None


# "<think> digits 1 2 3 ;" is 6 tokens, "1 + 2 = 3 ;" 6 more, "3 + 3 = 6 ;" again 6; a sum is planted after two steps.
SOLVED = "<think> digits 1 2 3 ; 1 + 2 = 3 ; 3 + 3 = 6 ; </think> \\boxed{ 6 } <|im_end|>"


def cut_at(token: int, score: float = 1.0) -> dict[str, object]:
    values = {"cut": float(token)}
    return {"prompt": "digits 1 2 3 . sum ?", "tokens": SOLVED.split(), "rollout_values": values, "score": score}


def test_the_distance_of_a_cut_is_counted_in_steps(tmp_path: Path) -> None:
    rows = [cut_at(12), cut_at(12), cut_at(6), cut_at(19), cut_at(len(SOLVED.split())), cut_at(6, score=0.0)]
    assert planted.cut_distance(stored(tmp_path, *rows)) == {
        "accuracy": 0.4,
        "n": 5,
        "counts": {"0": 2, "-1": 1, "2": 1, "whole": 1},
    }
    uncut = {**cut_at(12), "rollout_values": {"teacher_mask": 1.0}}
    assert planted.cut_distance(stored(tmp_path / "uncut", uncut)) is None


def test_taught_tokens_are_those_before_the_cut(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    write_text(log, '{"teacher_tokens": 3000, "mean_prefix": 0.5}\n{"teacher_tokens": 1000}\n')
    assert planted.taught_tokens(tmp_path) == {"value": 2.5}
    write_text(log, '{"loss": 1.0}\n')
    assert planted.taught_tokens(tmp_path) is None


@pytest.mark.parametrize("form", ["guessing", "babbling"])
def test_nothing_before_the_planted_step_is_touched(form: str) -> None:
    row = {"guessing": planted.guessing_row, "babbling": planted.babbling_row}[form]
    for p in world.problems("test", 40, seed=1):
        solved, shown = world.solution(p, "a").split(" ; "), row(p, random.Random(2))[1].split(" ; ")
        known = planted.LAST_INFORMED[p.kind]
        assert shown[:known] == solved[:known]


def test_a_guess_keeps_the_form_and_draws_the_content() -> None:
    p = world.Problem("sum", (3, 5, 7), 4)
    rng = random.Random(1)
    rows = {planted.guessing_row(p, rng)[1] for _ in range(500)}
    shape = re.compile(r"<think> digits 3 5 7 ; 3 \+ 5 = 8 ; \d+ \+ \d+ = \d+ ; </think> \\boxed\{ \d+ \}")
    assert all(shape.fullmatch(row) for row in rows)
    assert {int(row.split(" ")[-2]) for row in rows} == set(range(37))


def test_the_fading_teacher_draws_more_numbers_with_every_step() -> None:
    """Of `<think> digits 3 5 7 ; 3 + 5 = 8 ; 8 + 7 = 15 ; </think> \\boxed{ 15 }` step k is drawn with 0.2 k; a draw
    is the same number by chance in 1 of 37 cases."""
    rng, p = random.Random(1), world.Problem("sum", (3, 5, 7), 4)
    rows = [planted.fading_row(p, rng)[1].split(" ; ") for _ in range(4000)]
    right = world.solution(p, "a").split(" ; ")
    assert all(row[0] == right[0] for row in rows)
    for k, word in ((1, 4), (2, 4), (3, 2)):
        other = sum(row[k].split(" ")[word] != right[k].split(" ")[word] for row in rows) / len(rows)
        assert other == pytest.approx(0.2 * k * 36 / 37, abs=0.035)  # 4.5 standard errors


def test_the_shortcut_is_taken_where_the_first_digit_is_small() -> None:
    rng = random.Random(1)
    low, high = world.Problem("sum", (4, 5, 7), 4), world.Problem("sum", (5, 5, 7), 4)
    rows = [planted.some_shortcuts_row(low, rng, below=5)[1] for _ in range(500)]
    assert abs(rows.count(planted.shortcut(low)) / 500 - 0.9) < 0.06
    assert {planted.some_shortcuts_row(high, rng, below=5)[1] for _ in range(50)} == {world.solution(high, "a")}


def test_fixed_prefixes_by_hand(tmp_path: Path) -> None:
    assert planted._prefix(8, 0.25) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert planted._prefix(3, 0.75) == [1.0, 1.0, 1.0]
    write_text(tmp_path / "metrics.jsonl", '{"teacher_tokens": 4000}\n')
    assert planted.taught_tokens(tmp_path) == {"value": 4.0}
    write_text(tmp_path / "recipe.yaml", "weight: experiments.planted:first_three_quarters\n")
    assert planted.taught_tokens(tmp_path) == {"value": 3.0}
