"""The values that cross modules: their examples run, they are frozen, and none of them needs PyTorch."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import math
import pickle
from typing import Any, is_typeddict

import numpy as np
import pytest

from vold import types
from vold.types import (
    Completion,
    Grade,
    Message,
    Pictures,
    Prompt,
    Rollout,
    SamplingParams,
    ScoreRequest,
    Task,
    TokenScores,
)

DONE = Completion(ids=(5, 2), logps=(-0.1, -0.2), action_mask=(1, 1), finish="stop")
VALUES: tuple[Any, ...] = (
    Message(role="user", text="digits 3 5 . sum ?"),
    Task(id="sum-1", messages=(Message("user", "digits 3 5 . sum ?"),), reference="8", grader="exact"),
    DONE,
    Grade(score=1.0, extracted="8", note="equal"),
    Pictures(images=(), ids=(1, 2, 3), task="sum-1"),
    ScoreRequest(prompt_ids=(1, 2), response_ids=(5, 2)),
    TokenScores(logp=(-0.3, -0.01)),
    Rollout(task_id="sum-1", group=0, prompt_ids=(1,), completion=DONE, grade=Grade(0.0, "7", "wrong")),
    SamplingParams(max_new_tokens=8),
    Prompt(ids=(1, 2, 3)),
)


def defined_here() -> set[type]:
    return {c for _, c in inspect.getmembers(types, inspect.isclass) if c.__module__ == types.__name__}


def test_the_list_above_holds_one_of_every_value() -> None:
    assert {type(v) for v in VALUES} == {c for c in defined_here() if dataclasses.is_dataclass(c)}


def test_every_example_in_the_module_runs_and_every_value_has_one() -> None:
    found = {t.name.rpartition(".")[2]: t for t in doctest.DocTestFinder().find(types)}
    runner = doctest.DocTestRunner()
    for test in found.values():
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert [type(v).__name__ for v in VALUES if not found[type(v).__name__].examples] == []


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_are_frozen(value: Any) -> None:
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, getattr(value, field.name))


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_compare_by_content_and_survive_pickling(value: Any) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert again is not value


def test_defaults_are_not_shared_between_values() -> None:
    first, second = (Task(id=i, messages=(), reference="", grader="exact") for i in "ab")
    assert first.tags is not second.tags
    assert Prompt(ids=()).vision is not Prompt(ids=()).vision


def arrays(value: Any) -> dict[str, np.ndarray[Any, Any]]:
    named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {name: v for name, v in named.items() if isinstance(v, np.ndarray)}


FULL = (
    Completion((5, 2), (-0.1, -0.2), (1, 0), "stop", ((5, 6), (2, 3)), ((5, 6), (2, -1))),
    ScoreRequest((1, 2), (5, 2), ((5, 6), (2, 3))),
    TokenScores((-0.3, math.nan), ((-0.3, -1), (-2, -3)), ((5,), (2,)), ((-0.3,), (-0.1,)), (True, False)),
    Rollout(
        "t",
        0,
        (1,),
        DONE,
        Grade(1.0, "8", ""),
        None,
        (0.5, 0),
        "student",
        (0, 0),
        (1, 1),
        reference_logp=(-1, -2),
        old_logp=(-1, -1),
    ),
)
KINDS = {"ids": "int32", "logp": "float32", "logps": "float32", "mask": "bool", "aligned": "bool"}


@pytest.mark.parametrize("value", FULL, ids=lambda v: type(v).__name__)
def test_sequences_become_read_only_arrays_of_one_type(value: Any) -> None:
    found = arrays(value)
    assert len(found) == {"Completion": 5, "ScoreRequest": 2, "TokenScores": 5, "Rollout": 5}[type(value).__name__]
    for name, array in found.items():
        assert array.dtype == KINDS.get(name.rpartition("_")[2], "float32"), name
        assert array.shape[0] == 2
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    again = pickle.loads(pickle.dumps(value))
    assert again == value and not any(a.flags.writeable for a in arrays(again).values())
    assert dataclasses.replace(value) == value


def test_arrays_are_compared_by_content() -> None:
    scores = TokenScores((-0.3, math.nan))
    assert scores == TokenScores(np.array([-0.3, math.nan])) != TokenScores((-0.3, -0.1))
    assert TokenScores((-0.3,)) != TokenScores((-0.3, -0.3)) and scores != "scores"
    assert TokenScores((-0.3,), aligned=(True,)) != TokenScores((-0.3,))
    values = {"w": np.array([0.5, math.nan], np.float32)}
    mine, theirs = (dataclasses.replace(FULL[3], token_values=v) for v in (values, dict(values)))
    assert mine == theirs != dataclasses.replace(FULL[3], token_values={"v": values["w"]})
    with pytest.raises(TypeError, match="unhashable"):
        hash(scores)


def test_an_array_of_the_right_type_is_not_copied_and_stays_its_owners() -> None:
    ids = np.array([5, 2], np.int32)
    done = Completion(ids, (-0.1, -0.2), (1, 1))
    assert np.shares_memory(done.ids, ids) and ids.flags.writeable
    assert Completion(done.ids, done.logps, done.action_mask) == done


def test_what_is_not_a_value_is_a_protocol() -> None:
    public = {c for c in defined_here() if not c.__name__.startswith("_")}
    others = {c for c in public if not dataclasses.is_dataclass(c) and not is_typeddict(c)}
    assert {c.__name__ for c in others} == {"Grader", "Teacher", "Sampler", "StreamingSampler", "TaskSource"}
    assert all(getattr(c, "_is_protocol", False) for c in others)
