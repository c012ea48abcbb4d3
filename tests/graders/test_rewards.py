"""Rewards of the user's own: what a recipe may write, what a function may return, and how a bad one is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import own_code
from vold.errors import ConfigError, UngradableReference
from vold.graders import check_reference, get_grader, outcome
from vold.graders.reward_worker import scores_of
from vold.graders.rewards import Reward, terms_of
from vold.types import Grade, named

MODULE = r'''
import os, re, time
import numpy as np

def half(response, reference):
    return 0.5 if reference in response else 0

def parts(response, reference):
    """Two scores of its own."""
    return {"found": reference in response, "short": np.float32(max(0.0, 1 - len(response) / 100))}

def told(response, reference, *, tags, finish="stop"):
    return 1.0 if (tags.get("kind"), finish) == ("odd", "length") else 0.75

class Tagged:
    """An answer between tags, as no box is."""
    def right_answer(self, reference):
        return f"<answer>{reference}</answer>"
    def __call__(self, response, reference):
        found = re.search("<answer>(.*)</answer>", response)
        return float(found is not None and found[1] == reference)

def low(response, reference): return 0.2
def raises(response, reference): return 1 / 0
def nan(response, reference): return float("nan")
def words(response, reference): return "1.0"
def above(response, reference): return 1.5
def none(response, reference): return None
def empty(response, reference): return {}
def inside(response, reference): return {"a": 1.0, "b": "x"}
def dies(response, reference): os._exit(3)
def spins(response, reference):
    while True: pass
def sleeps(response, reference): time.sleep(10_000)
def prints(response, reference):
    print('{"scores": {}}')
    return 1
def on_wrong(response, reference):
    return 1.0 if reference in response else 1 / 0
def one(response): return 1.0
number = 3
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("rewards")
    (home / "own_rewards.py").write_text(MODULE)
    with own_code.forgotten(home):
        named.look_in(home)
        yield


def test_one_number_is_a_partial_reward() -> None:
    grade = get_grader("own_rewards:half")(r"so \boxed{8}", "8")
    assert grade == Grade(0.5, "8", "half 0.5", {"half": 0.5})
    assert outcome(grade) == "wrong"
    assert get_grader("own_rewards:half")("eight", "8") == Grade(0.0, "eight", "half 0", {"half": 0.0})


def test_several_scores_are_their_mean_or_what_the_recipe_weighs() -> None:
    text = "8" + "." * 49  # found 1, short 1 - 50/100
    whole = get_grader("own_rewards:parts")(text, "8")
    assert (whole.score, whole.scores) == (0.75, {"parts.found": 1.0, "parts.short": 0.5})
    weighed = get_grader("3 own_rewards:parts.found + own_rewards:parts.short")(text, "8")
    assert weighed.score == (3 * 1 + 0.5) / 4
    assert get_grader("own_rewards:parts.short")(text, "8").score == 0.5


def test_a_sum_with_a_grader_of_the_package_has_its_answer() -> None:
    grade = get_grader("0.8 math + 0.2 own_rewards:half")(r"so \boxed{\frac{16}{2}} or 8", "8")
    assert grade.score == pytest.approx(0.8 * 1 + 0.2 * 0.5)
    assert (grade.extracted, dict(grade.scores)) == (r"\frac{16}{2}", {"math": 1.0, "half": 0.5})


def test_what_it_asks_for_by_name_it_is_told() -> None:
    grader: Any = get_grader("own_rewards:told")
    assert grader("", "", finish="length", tags={"kind": "odd"}).score == 1.0
    assert grader("", "", finish="stop", tags={"kind": "odd"}).score == 0.75


def test_a_class_is_made_once_and_says_what_a_right_answer_looks_like() -> None:
    check_reference("own_rewards:Tagged", "8")
    assert get_grader("own_rewards:Tagged")("<answer>8</answer>", "8").score == 1.0


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("raises", "grader crash: ZeroDivisionError: division by zero"),
        ("nan", "grader crash: returned nan=nan, and a score is a number from 0 to 1"),
        ("words", "grader crash: returned words='1.0'"),
        ("dies", "grader crash: the worker died"),
        ("spins", "grader time-out"),
        ("sleeps", "grader time-out: no answer within 2 s"),
    ],
)
def test_what_it_does_to_a_response_stops_no_run(name: str, note: str) -> None:
    reward = Reward(f"own_rewards:{name}", time_limit=0.5, patience=2 if name == "sleeps" else 60)
    assert [n[: len(note)] for n in (reward.ask("8", "8")[1], reward.ask("8", "8")[1])] == [note, note]
    reward.close()
    if name == "raises":
        grade = get_grader("own_rewards:raises")("8", "8")
        assert (grade.score, outcome(grade)) == (0.0, "timed_out")


def test_what_it_prints_is_no_reply_and_a_long_response_fits() -> None:
    assert get_grader("own_rewards:prints")("x" * 1_000_000, "8").score == 1.0


@pytest.mark.parametrize(
    ("grader", "what", "got"),
    [
        ("own_rewards:low", "reward own_rewards:low gives a right answer a low mark", r"0.2 for '\\boxed{8}'"),
        ("own_rewards:raises", "reward own_rewards:raises fails on a right answer", "ZeroDivisionError"),
        ("own_rewards:nan", "fails on a right answer", "nan=nan"),
        ("own_rewards:words", "fails on a right answer", "words='1.0'"),
        ("own_rewards:above", "fails on a right answer", "above=1.5"),
        ("own_rewards:none", "fails on a right answer", "none=None"),
        ("own_rewards:empty", "fails on a right answer", "returned no score"),
        ("own_rewards:inside", "fails on a right answer", "inside.b='x'"),
        ("own_rewards:parts.absent", "has no score absent", "parts.found, parts.short"),
        ("0.5 exact + 0.5 own_rewards:low", "gives a right answer a low mark", "0.2"),
    ],
)
def test_a_bad_one_is_found_on_a_reference(grader: str, what: str, got: str) -> None:
    with pytest.raises(UngradableReference, match=what) as caught:
        check_reference(grader, "8")
    assert got in caught.value.got and caught.value.fix


def test_one_that_hangs_is_found_on_a_reference() -> None:
    reward = Reward("own_rewards:spins", time_limit=0.2)
    with pytest.raises(UngradableReference, match="own_rewards:spins hangs on a right answer"):
        reward.check("8", [])
    reward.close()


def test_addends_are_tried_too_and_half_the_marks_will_do() -> None:
    check_reference("0.5 exact + 0.5 own_rewards:half", "8")
    with pytest.raises(UngradableReference, match="'choice' grader"):
        check_reference("0.5 choice + 0.5 own_rewards:half", "8")


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ("maths + own:f", "unknown grader"),
        ("0 math + exact", "no weight"),
        ("math + math", "one name"),
        ("a:f + b:f", "one name"),
        ("own:count + count", "one name"),
        ("math.part + exact", "this is no grader"),
        ("own:", "this is no grader"),
        ("-1 math + exact", "this is no grader"),
        ("own:f(x) + exact", "this is no grader"),
        ("math +", "this is no grader"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_loaded(grader: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        terms_of(grader)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rewards:number", "is no reward"),
        ("own_rewards:one", "takes other arguments"),
        ("own_rewards:absent", "nothing of that name"),
        ("own_nowhere:f", "cannot be imported"),
    ],
)
def test_what_is_no_reward_is_refused_when_it_is_loaded(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_grader(name)


def test_scores_within_scores_have_dotted_names() -> None:
    assert scores_of({"a": {"b": 1, "c": False}}, "f") == {"f.a.b": 1.0, "f.a.c": 0.0}
