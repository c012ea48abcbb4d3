"""Environments of the user's own: what they are told of a rollout, and how a bad one is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

import tiny
from vold.engines.samplers.multi_turn import TurnSampler
from vold.engines.tools.environment import Turn, observed, open_environment
from vold.errors import ConfigError, SamplerError
from vold.model.chat import Chat
from vold.run.environment_section import ToolEnvironment
from vold.types import Completion, Message, Prompt, SamplingParams


class Scripted:
    """A sampler whose rollouts say `one`, then `two`, and then end."""

    def __init__(self, chat: Chat) -> None:
        self.chat, self.said = chat, iter(["3", "5", "8"])

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        ids = [*self.chat.tokens(next(self.said)), self.chat.end_id]
        done = Completion(ids, [-0.1] * len(ids), [1] * len(ids), "stop")
        return [[done] * n for _ in prompts]


class Noting:
    def __init__(self) -> None:
        self.seen: list[Turn] = []

    def observe(self, turns: Sequence[Turn]) -> list[str | None]:
        self.seen += turns
        for turn in turns:
            turn.state["turns"] = turn.state.get("turns", 0) + 1
        return ["7" if turn.state["turns"] < 3 else None for turn in turns]


def test_a_turn_knows_its_task_its_prompt_what_was_said_and_keeps_a_state() -> None:
    chat, environment = tiny.student().chat, Noting()
    sampler = TurnSampler(Scripted(chat), chat, environment, max_turns=5)
    prompt = chat.prompt([Message("user", "digits 3 5 . sum ?")], "sum-1")
    sampler.generate([prompt], SamplingParams(100), n=2)
    first = [t for t in environment.seen if t == "3"]
    assert len(environment.seen) == 6 and len(first) == 2
    assert all(t.task == "sum-1" and "digits 3 5 . sum ?" in t.prompt for t in environment.seen)
    assert [list(t.before) for t in environment.seen[::2]] == [[], [("3", "7")], [("3", "7"), ("5", "7")]]
    assert first[0].state is not first[1].state, "rollouts share nothing"


@pytest.mark.parametrize(
    ("observe", "got"),
    [
        (lambda turns: 1 / 0, "ZeroDivisionError"),
        (lambda turns: None, "NoneType"),
        (lambda turns: ["a"], "1 answers"),
        (lambda turns: [3, "a"], "[3, 'a']"),
        (lambda turns: "ab", "str"),
    ],
)
def test_one_that_fails_or_answers_otherwise_stops_the_run_with_its_name(observe: Any, got: str) -> None:
    environment = type("Own", (), {"observe": staticmethod(observe)})()
    with pytest.raises(SamplerError) as caught:
        observed("own:Env", environment, [Turn("a"), Turn("b")])
    assert caught.value.where == "own:Env" and got in caught.value.got


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"kind": "pyton"}, "there is no such environment"),
        ({"kind": "python", "settings": {"a": 1}}, "python has no settings"),
        ({"kind": "mcp"}, "an MCP server is started by a command"),
        ({"kind": "mcp", "settings": {"command": "python server.py"}}, "an MCP server is started by a command"),
    ],
)
def test_a_section_that_cannot_serve_is_refused(section: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ToolEnvironment.model_validate(section)


@pytest.mark.parametrize(
    ("kind", "what"), [("collections:OrderedDict", "lacks `observe`"), ("os:nothing", "nothing of that name")]
)
def test_what_is_no_environment_is_refused_when_it_is_opened(kind: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        open_environment(ToolEnvironment(kind=kind))


def test_settings_of_before_are_those_of_now() -> None:
    """An environment that an earlier run was started with has no `settings` in what it has kept."""
    kept = yaml.safe_load("{kind: python, calls: fenced, max_turns: 4}")
    assert ToolEnvironment.model_validate(kept).settings == {}
