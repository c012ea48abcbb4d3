"""The section `environment` of a recipe."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from vold.errors import ConfigError
from vold.run.section import Section
from vold.types.named import is_named


class ToolEnvironment(Section):
    """What answers the model between turns: a Python interpreter that it may call, whose programs run in a process that
    is shut in; the tools of an MCP server; or an environment of your own."""

    kind: str = "python"
    """`python`, `mcp`, or `my_module:MyEnvironment`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What `my_module:MyEnvironment` is made of, or `command` (a list) of an MCP server. `python` has none."""
    calls: Literal["hermes", "fenced"] = "hermes"
    """How a call is written: JSON between `<tool_call>` tags, or a program between lines of three backticks."""
    max_turns: int = Field(4, gt=1, le=1000)
    """Turns of the model in one rollout. `max_new_tokens` is the budget of all turns and tool answers together."""
    seconds: float = Field(10.0, gt=0, le=86_400)
    """Wall-clock seconds of a program."""
    memory_mb: int = Field(1024, ge=64, le=2**20)
    """MiB of memory of a program."""
    output: int = Field(2000, gt=0, le=10**7)
    """Characters of a program's output that the model gets to see."""

    @model_validator(mode="after")
    def _of_a_kind(self) -> ToolEnvironment:
        if self.kind not in ("python", "mcp") and not is_named(self.kind):
            fix = "choose python, mcp, or my_module:MyEnvironment"
            raise ConfigError("there is no such environment", got=self.kind, fix=fix)
        if self.kind == "python" and self.settings:
            raise ConfigError("python has no settings", got=", ".join(self.settings), fix="leave them out")
        command = self.settings.get("command")
        if self.kind == "mcp" and not (
            isinstance(command, list) and command and all(isinstance(c, str) for c in command)
        ):
            fix = "settings: {command: [python, server.py]}"
            raise ConfigError("an MCP server is started by a command", got=repr(command), fix=fix)
        return self

    def words(self) -> str:
        """All of it in a line, as results carry it."""
        if self.kind != "python":
            return f"{self.kind} {json.dumps(self.settings, sort_keys=True)}, {self.max_turns} turns"
        limits = f"{self.seconds:g} s, {self.memory_mb} MiB, {self.output} characters"
        return f"{self.kind}, {self.calls} calls, {self.max_turns} turns, {limits}"
