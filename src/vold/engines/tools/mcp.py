"""`kind: mcp`: the tools of a server that speaks the Model Context Protocol, started by a command (the extra `mcp`).

A call is written in the hermes form of `vold.engines.tools.python`, with the name of one of the server's tools. The
server is a program of the user's, named in the recipe, and runs with the user's rights: what a tool may do is up to it.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from vold.engines.tools.python import hermes_calls
from vold.errors import ConfigError, SamplerError, clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class McpTools:
    """The tools of one server, which runs for as long as this object.

    Args:
        settings: `command`, a list, starts the server; it speaks over its standard input and output.
        seconds: wall-clock seconds of a call.
        output: characters of an answer that the model gets to see.

    Raises:
        ConfigError: the package is not installed, or the server does not start.
    """

    def __init__(self, settings: Mapping[str, Any], *, seconds: float, output: int) -> None:
        try:
            from anyio.from_thread import start_blocking_portal
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError as error:
            fix = "pip install 'vold[mcp]'"
            raise ConfigError("mcp is not installed", where="environment.kind", got=str(error), fix=fix) from error
        self.seconds, self.output, self.command = seconds, output, list(settings["command"])
        self._open = contextlib.ExitStack()
        server = StdioServerParameters(command=self.command[0], args=self.command[1:])
        try:
            self._portal = self._open.enter_context(start_blocking_portal())
            client = Client(stdio_client(server), read_timeout_seconds=seconds)
            self._client: Any = self._open.enter_context(self._portal.wrap_async_context_manager(client))
            self.tools = tuple(tool.name for tool in self._portal.call(self._client.list_tools).tools)
        except Exception as error:  # whatever a program that is no server makes of it
            self._open.close()
            raise ConfigError(
                "this MCP server does not start",
                where="environment.settings.command",
                got=f"{' '.join(self.command)}: {type(error).__name__}: {error}",
                fix="try the command in a terminal: it waits for JSON on its standard input",
            ) from error

    def observe(self, turns: Sequence[str]) -> list[str | None]:
        """The answers to each turn's calls, in order, or what is wrong with them; None for a turn without a call.

        Raises:
            SamplerError: the server has ended.
        """
        calls = [hermes_calls(turn) for turn in turns]
        return ["\n".join(map(self._answer, found)) if found else None for found in calls]

    def close(self) -> None:
        """End the server."""
        self._open.close()

    def _answer(self, call: tuple[object, object] | str) -> str:
        if isinstance(call, str):
            return f"ToolError: {call}"
        name, arguments = call
        if not isinstance(name, str) or name not in self.tools:
            return f"ToolError: there is no tool {name!r}; the tools are {', '.join(self.tools)}"
        if not isinstance(arguments, dict):
            return "ToolError: `arguments` is no object"
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED

        try:
            found = self._portal.call(partial(self._client.call_tool, name, arguments))
        except MCPError as error:  # the call is refused, or takes too long
            if error.code == CONNECTION_CLOSED:
                where, fix = " ".join(self.command), "start the run again: it goes on, with a new server"
                raise SamplerError("the MCP server has ended", where=where, got=name, fix=fix) from error
            return clean(f"ToolError: {error}")[: self.output]
        text = "\n".join(part.text for part in found.content if part.type == "text")
        return clean(f"ToolError: {text}" if found.is_error else text or "(no output)")[: self.output]
