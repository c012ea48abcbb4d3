"""The world whose failures cascade: interpreters by hand, and that its teacher's own solutions are what it says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments import chain, drift
from stored import store_rows
from vold.data.worlds import calls
from vold.data.worlds.call_tokens import build_tokenizer
from vold.engines.tools.environment import Turn
from vold.model.chat import Chat

PROBLEM = chain.Problem(4, (("lcm", 6), ("max", 9), ("gcd", 8)))


def answers(*turns: str) -> list[str | None]:
    machine, state = chain.Machine({}), dict[str, object]()
    return [machine.observe([Turn(turn, state=state)])[0] for turn in turns]


def test_values_and_imports_stay_until_a_program_fails_and_then_all_fail() -> None:
    lcm, plain = "``` from math import lcm ; r = lcm ( 4 , 6 ) ```", "``` r = max ( r , 9 ) ```"
    unset = "File \"<program>\", NameError: name 'r' is not defined"
    gcd = "File \"<program>\", NameError: name 'gcd' is not defined"
    assert answers(lcm, plain, "``` r = lcm ( r , 8 ) ```") == ["12", "12", "24"]
    assert answers(lcm, "``` r = gcd ( r , 8 ) ```", plain, plain) == ["12", gcd, unset, unset]
    again = "``` from math import gcd ; r = gcd ( 12 , 8 ) ```"
    assert answers(lcm, "``` r = gcd ( r , 8 ) ```", again, plain) == ["12", gcd, "4", "9"]


@pytest.mark.parametrize(
    "turn",
    [
        "``` r = max ( 1 ```",
        "``` import os ```",
        "``` from math import max ; r = max ( 1 , 2 ) ```",
        "``` r = pow ( 2 , 3 ) ```",
    ],
)
def test_what_is_no_program_of_this_world_fails_and_is_not_run(turn: str) -> None:
    unset = "File \"<program>\", NameError: name 'r' is not defined"
    first = "``` r = max ( 2 , 9 ) ```"
    assert answers(first, turn, "``` r = max ( r , 9 ) ```") == ["9", 'File "<program>", SyntaxError:', unset]
    assert answers("\\boxed{ 4 }") == [None]


def test_a_result_that_is_too_large_fails() -> None:
    assert answers("``` from math import lcm ; r = lcm ( 98 , 11 ) ```") == ['File "<program>", TypeError:']


def test_the_teacher_recovers_by_writing_the_value_out() -> None:
    assert (PROBLEM.question, PROBLEM.values, PROBLEM.answer) == ("lcm 4 6 then max 9 then gcd 8 ?", (12, 12, 4), 4)
    hasty = chain.solution(PROBLEM, random.Random(1), haste=1.0)
    assert hasty[:4] == (
        "``` r = lcm ( 4 , 6 ) ```",
        "File \"<program>\", NameError: name 'lcm' is not defined",
        "``` from math import lcm ; r = lcm ( 4 , 6 ) ```",
        "12",
    )
    assert hasty[-3:] == ("``` from math import gcd ; r = gcd ( 12 , 8 ) ```", "4", "\\boxed{ 4 }")
    assert answers(*hasty[::2]) == [*hasty[1::2], None]


def test_all_problems_take_six_calls_and_all_words_are_known() -> None:
    chat, rng = Chat(build_tokenizer(chain.WORDS)), random.Random(3)
    for p in chain.ChainTasks("test", 50, 8).problems:
        said = chain.solution(p, rng)
        assert sum(calls.FENCE in turn for turn in said) >= 6
        assert answers(*said[::2]) == [*said[1::2], None]
        assert chat.tokenizer.unk_token_id not in chat.tokens(" ".join((*said, p.question)))
        assert 2 <= min(p.values) <= max(p.values) <= 99
    assert chain.WORDS.index('"<program>",') == calls.VOCABULARY.index('"<program>",')


def test_splits_share_no_problem() -> None:
    one, two = (set(chain.ChainTasks(split, 100, 1).problems) for split in ("train", "test"))
    assert not one & two


def test_failures_that_follow_on_a_failure_are_counted(tmp_path: Path) -> None:
    """Three failed calls, of which the second and third come right after another."""
    tool, end, own, fail = drift.TOOL, drift.END, drift.ASSISTANT, calls.FAILED
    ids = [50, end, *([tool, fail, own, 51, end] * 3), tool, 60, own, 52, end]
    zeros = [0.0] * len(ids)
    store_rows(tmp_path / "rollouts", 0, [{"ids": ids, "logp": zeros, "teacher_logp": zeros}])
    assert drift.cascaded(tmp_path) == {"accuracy": pytest.approx(2 / 3), "n": 3}
