"""The file of docs/extending.md that uses a taskset of `verifiers`: with that package where it is installed (the extra
`verifiers`), and elsewhere with one of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import own_code
import tiny
from vold.data.sources import Tasks
from vold.engines.grade import grade_text
from vold.errors import UngradableReference
from vold.types import named

TASKSET = """
import verifiers.v1 as vf

class SumData(vf.TaskData):
    answer: str

class SumTask(vf.Task[SumData]):
    @vf.reward(weight=0.75)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.split()[-1:] == [self.data.answer])

    @vf.reward(weight=0.25)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 12)

class Sums(vf.Taskset[SumTask]):
    def load(self):
        for i in range(3):
            yield SumTask(SumData(prompt=f"max {i} 7 then max 2 ?", system_prompt="Be brief.", answer="7"))

__all__ = ["Sums"]
"""
STAND_IN = """
import importlib
from types import SimpleNamespace
from typing import Generic, TypeVar

from pydantic import BaseModel

Any = TypeVar("Any")
AgentConfig = AgentInfo = AssistantMessage = MessageNode = TasksetConfig = TraceTask = SimpleNamespace

class TaskData(BaseModel):
    idx: int | None = None
    prompt: str
    system_prompt: str | None = None

    @property
    def prompt_text(self):
        return self.prompt

class Task(Generic[Any]):
    def __init__(self, data):
        self.data = data

    async def score(self, trace):
        for name in dir(type(self)):
            if weight := getattr(getattr(self, name), "weight", None):
                trace.reward += weight * await getattr(self, name)(trace)

class Taskset(Generic[Any]):
    def __iter__(self):
        for idx, task in enumerate(self.load()):
            task.data = task.data.model_copy(update={"idx": idx})
            yield task

class Trace(SimpleNamespace):
    reward = 0.0

    @property
    def last_reply(self):
        return self.nodes[-1].message.content

def reward(weight):
    return lambda function: setattr(function, "weight", weight) or function

def load_taskset(config):
    module = importlib.import_module(config.id)
    return getattr(module, module.__all__[0])()
"""


@pytest.fixture(scope="module", autouse=True)
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home: Path = tmp_path_factory.mktemp("theirs")
    own_code.write_page(home)
    (home / "sums.py").write_text(TASKSET)
    (home / "told.py").write_text(TASKSET.replace('answer="7"', 'answer="it is 7"'))
    if find_spec("verifiers") is None:
        (home / "verifiers").mkdir()
        (home / "verifiers" / "__init__.py").write_text("")
        (home / "verifiers" / "v1.py").write_text(STAND_IN)
    with own_code.forgotten(home):
        named.look_in(home)
        yield


def opened(taskset: str) -> Tasks:
    return tiny.opened({"kind": "theirs:Rows", "taskset": taskset})


def test_the_page_reads_and_marks_tasks_of_a_taskset() -> None:
    """Three quarters for the right number at the end, one for fewer than twelve letters."""
    tasks = opened("sums")
    assert [task.id for task in tasks] == ["sums 0", "sums 1", "sums 2"]
    assert [(m.role, m.text) for m in tasks[1].messages] == [("system", "Be brief."), ("user", "max 1 7 then max 2 ?")]
    marked = {"it is 7": 1.0, "so the larger one is 7": 0.75, "it is 1": 0.25, "so the larger one is 1": 0.0}
    for said, score in marked.items():
        assert grade_text(tasks[1], said, "stop").score == score


def test_a_taskset_that_gives_its_own_answer_a_low_mark_is_refused() -> None:
    """Its last word alone is right to it, and its `answer` has three: a quarter, for being short."""
    with pytest.raises(UngradableReference, match="gives a right answer a low mark"):
        opened("told")
