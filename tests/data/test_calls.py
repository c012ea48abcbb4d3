"""The demo world for tools: its problems by hand, its teacher's rollouts against the real tool, its models."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import vold.demo
from vold.data.worlds import calls
from vold.data.worlds.call_tokens import build_tokenizer
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.multi_turn import TurnSampler, last_turn
from vold.engines.tools import python as tools
from vold.engines.tools.interpreter import Limits
from vold.engines.tools.python import PythonTool
from vold.graders import get_grader
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.types import Completion, Grade, Rollout, SamplingParams

ASSETS = Path(vold.demo.__file__).parent / "assets"
PROBLEM = calls.Problem("lcm", 4, 6, "max", 9)


@pytest.mark.parametrize(
    ("problem", "answer", "failures"),
    [
        (PROBLEM, 12, 1),
        (calls.Problem("gcd", 8, 12, "lcm", 6), 12, 2),
        (calls.Problem("min", 8, 12, "max", 3), 8, 0),
    ],
)
def test_answers_by_hand(problem: calls.Problem, answer: int, failures: int) -> None:
    assert (problem.answer, problem.failures) == (answer, failures)


def test_the_teacher_recovers_or_imports_at_once() -> None:
    failed = (
        "``` lcm ( 4 , 6 ) ```",
        'Traceback (most recent call last):\n  File "<program>", line 1, in <module>\n'
        "NameError: name 'lcm' is not defined",
    )
    rest = ("``` from math import lcm ; lcm ( 4 , 6 ) ```", "12", "``` max ( 12 , 9 ) ```", "12", "\\boxed{ 12 }")
    rng = random.Random(1)
    made = [calls.solution(PROBLEM, rng) for _ in range(1000)]
    assert set(made) == {(*failed, *rest), rest}
    assert abs(sum(len(m) > len(rest) for m in made) / 1000 - calls.HASTE) < 0.06  # 4 standard errors


def test_the_tool_says_what_the_teacher_was_trained_on() -> None:
    rng = random.Random(2)
    tool = PythonTool("fenced", Limits(seconds=5.0))
    for problem in calls.problems("train", 12, seed=1):
        turns = calls.solution(problem, rng)
        assert tool.observe(turns[::2]) == [*turns[1::2], None]


@pytest.mark.parametrize(
    ("program", "fails"),
    [("gcd ( 4 , 6 )", True), ("max ( 4 ,", True), ("max ( 4 )", True), ("max ( 4 , 6 )", False), ("x = 4", False)],
)
def test_answers_to_failed_calls_share_a_word_with_each_other_alone(program: str, fails: bool) -> None:
    chat = Chat(build_tokenizer(calls.VOCABULARY))
    (said,) = PythonTool("fenced", Limits(seconds=5.0)).observe([f"``` {program} ```"])
    assert said is not None
    assert (calls.FAILED in chat.after_turn(said)) == fails


def test_weights_end_with_the_first_failed_call() -> None:
    f = calls.FAILED
    rollouts = [
        Rollout("t", 0, (1,), Completion(ids, (-1.0,) * len(ids), mask, "stop"), Grade(0.0, None, ""))
        for ids, mask in [
            ((50, 51, f, 52, 53, f, 54), (1, 1, 0, 0, 1, 0, 1)),
            ((50, f, 51, 52), (1, 1, 0, 1)),  # the model wrote the word itself
        ]
    ]
    assert calls.before_failure(rollouts) == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0] * 4]


def test_splits_share_no_problem() -> None:
    found = [set(calls.problems(split, 300, seed=1)) for split in ("train", "select", "test")]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def test_a_program_that_has_run_is_not_run_again() -> None:
    tool = PythonTool("fenced", Limits(seconds=5.0))
    turn = "```\nimport time\ntime.time_ns()\n```"
    assert tool.observe([turn]) == tool.observe([turn])
    assert tool.observe([turn]) != PythonTool("fenced", Limits(seconds=4.0)).observe([turn])


def test_a_program_that_was_stopped_is_run_again() -> None:
    limits = Limits(seconds=0.5)
    (said,) = PythonTool("fenced", limits).observe(["```\nwhile True: pass\n```"])
    assert said is not None
    assert "TimeoutError" in said
    assert not [key for key in tools._outputs if key[0] == limits and "while True" in key[1]]


@pytest.mark.parametrize(("name", "least", "most"), [("caller-teacher", 0.9, 1.0), ("caller", 0.0, 0.2)])
def test_the_teacher_solves_problems_and_the_student_does_not(name: str, least: float, most: float) -> None:
    policy = Policy.load(str(ASSETS / name))
    tool = PythonTool("fenced", Limits(seconds=5.0))
    sampler = TurnSampler(InProcessSampler(policy, 100), policy.chat, tool, max_turns=6)
    source = calls.CallTasks("select", 40, 11)
    tasks = [source[i] for i in range(len(source))]
    answers = sampler.generate([policy.chat.prompt(t.messages) for t in tasks], SamplingParams(112, 1.0, seed=1))
    scores = [
        get_grader(t.grader)(policy.chat.text(last_turn(c.ids, c.action_mask)), t.reference, finish=c.finish).score
        for t, (c,) in zip(tasks, answers, strict=True)
    ]
    assert least <= sum(scores) / len(scores) <= most
