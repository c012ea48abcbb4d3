"""A rollout's partner: what answers when the model has ended a turn.

A tool call stands in the text of a turn, in one of two forms. `hermes` is what the chat templates of Qwen and others
write: JSON with `name` and `arguments` between `<tool_call>` and `</tool_call>`. `fenced` is a program between lines of
three backticks, for models whose template knows no tools.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from vold.engines.tools.interpreter import Limits, PythonInterpreter

if TYPE_CHECKING:
    from collections.abc import Sequence

CallForm = Literal["hermes", "fenced"]
"""How a model writes a tool call."""

TOOLS = ("python", "code_interpreter")
"""Names under which a hermes call may ask for the interpreter; programs are the argument `code`."""

SIDE_BY_SIDE = 4
"""Programs that run at a time."""

KEPT = 4096
"""Programs whose output a process remembers."""

_HERMES = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_FENCED = re.compile(r"```(?:python|py)?\s*?(?:\n| )(.*?)```", re.DOTALL)


def find_calls(turn: str, form: CallForm) -> list[tuple[str | None, str]]:
    """The calls in a turn, in order: a program, or None and what is wrong with the call. Never raises.

    Example:
        >>> find_calls('<tool_call>{"name": "python", "arguments": {"code": "1+1"}}</tool_call>', "hermes")
        [('1+1', '')]
        >>> find_calls("<tool_call>1+1</tool_call>", "hermes")[0][0] is None
        True
    """
    if form == "fenced":
        return [(found, "") for found in _FENCED.findall(turn)]
    return [_program(call) for call in hermes_calls(turn)]


def hermes_calls(turn: str) -> list[tuple[object, object] | str]:
    """The hermes calls in a turn, in order: name and arguments, or what is wrong with the call. Never raises.

    Example:
        >>> hermes_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><tool_call>{</tool_call>')[0]
        ('add', {'a': 1})
    """
    return [_named_call(found) for found in _HERMES.findall(turn)]


def _named_call(text: str) -> tuple[object, object] | str:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the call is not JSON: {error}"
    return (call.get("name"), call.get("arguments")) if isinstance(call, dict) else (None, None)


def _program(call: tuple[object, object] | str) -> tuple[str | None, str]:
    if isinstance(call, str):
        return None, call
    name, arguments = call
    if name not in TOOLS:
        return None, f"there is no tool {name!r}; the tool is `python`"
    program = arguments.get("code") if isinstance(arguments, dict) else None
    return (program, "") if isinstance(program, str) else (None, "the argument `code` is missing")


_outputs: dict[tuple[Limits, str], str] = {}


class PythonTool:
    """Runs the programs of each turn and answers with what they print.

    Every program is taken to print the same each time: one that has run in this process is not run again, except after
    a timeout. Rollouts of a group write the same programs again and again.

    Args:
        form: how calls are written.
        limits: of every program.

    Raises:
        ConfigError: this machine cannot shut a program in.
    """

    def __init__(self, form: CallForm, limits: Limits) -> None:
        self.form: CallForm = form
        self.interpreter = PythonInterpreter(limits)

    def observe(self, turns: Sequence[str]) -> list[str | None]:
        """The output of each turn's programs, or what is wrong with its call; None for a turn without a call."""
        calls = [find_calls(turn, self.form) for turn in turns]
        printed = self._printed(list(dict.fromkeys(p for found in calls for p, _ in found if p is not None)))
        return [
            "\n".join(f"ToolError: {wrong}" if p is None else printed[p] for p, wrong in found) if found else None
            for found in calls
        ]

    def _printed(self, programs: list[str]) -> dict[str, str]:
        limits = self.interpreter.limits
        printed = {p: _outputs[limits, p] for p in programs if (limits, p) in _outputs}
        new = [p for p in programs if p not in printed]
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            results = list(pool.map(self.interpreter.run, new))
        for program, result in zip(new, results, strict=True):
            printed[program] = result.output.strip() or "(no output)"
            if result.seconds < limits.seconds:
                _outputs[limits, program] = printed[program]
        while len(_outputs) > KEPT:
            del _outputs[next(iter(_outputs))]
        return printed
