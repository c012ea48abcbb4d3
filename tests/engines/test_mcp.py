"""The tools of an MCP server: a real one, in a process of its own, over its standard input and output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vold.engines.tools.mcp import McpTools
from vold.errors import ConfigError, SamplerError

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

SERVER = """
import os, threading
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("sums")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def fail(why: str) -> str:
    raise ToolError(why)

@server.tool()
def quiet() -> None: ...

@server.tool()
def long() -> str:
    return "x" * 1000

@server.tool()
def slow() -> str:
    threading.Event().wait()

@server.tool()
def leave() -> str:
    os._exit(3)

server.run()
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file: Path = tmp_path_factory.mktemp("mcp") / "server.py"
    file.write_text(SERVER)
    return [sys.executable, str(file)]


@pytest.fixture(scope="module")
def tools(command: list[str]) -> Iterator[McpTools]:
    made = McpTools({"command": command}, seconds=60, output=100)
    yield made
    made.close()


def call(name: str, arguments: str) -> str:
    return f'so <tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        ("no call", None),
        (call("add", '{"a": 2, "b": 3}'), "5"),
        (call("add", '{"a": 2, "b": 3}') + call("add", '{"a": 2, "b": 9}'), "5\n11"),
        (call("quiet", "{}"), "(no output)"),
        (call("long", "{}"), "x" * 100),
        (call("fail", '{"why": "not today"}'), "ToolError: Error executing tool fail: not today"),
        (
            call("divide", "{}"),
            "ToolError: there is no tool 'divide'; the tools are add, fail, quiet, long",
        ),
        (call("add", "3"), "ToolError: `arguments` is no object"),
        (
            "<tool_call>{</tool_call>",
            "ToolError: the call is not JSON: Expecting property name",
        ),
    ],
)
def test_calls_are_answered_and_what_is_wrong_with_them_is_said(tools: McpTools, turn: str, answer: str | None) -> None:
    (said,) = tools.observe([turn])
    assert said == answer or (answer is not None and said is not None and said.startswith(answer))


def test_arguments_that_the_tool_does_not_take_are_refused_by_it(tools: McpTools) -> None:
    (said,) = tools.observe([call("add", '{"a": "x"}')])
    assert said is not None and said.startswith("ToolError: Error executing tool add")


def test_a_call_that_takes_too_long_is_answered_and_the_server_serves_on(command: list[str]) -> None:
    tools = McpTools({"command": command}, seconds=2, output=100)
    (said,) = tools.observe([call("slow", "{}")])
    assert said is not None and "timed out" in said
    tools.close()


def test_a_server_that_ends_stops_the_run(command: list[str]) -> None:
    tools = McpTools({"command": command}, seconds=60, output=100)
    for name in ("leave", "add"):
        with pytest.raises(SamplerError, match="the MCP server has ended"):
            tools.observe([call(name, "{}")])
    tools.close()


@pytest.mark.parametrize("wrong", [["false"], ["/no/such/program"]])
def test_a_command_that_is_no_server_is_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError, match="this MCP server does not start") as caught:
        McpTools({"command": wrong}, seconds=10, output=100)
    assert wrong[0] in caught.value.got
