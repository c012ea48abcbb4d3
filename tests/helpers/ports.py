"""A port of this machine that stays a server's own while the server is down."""

from __future__ import annotations

import socket


class HeldPort:
    """A free port of 127.0.0.1, bound and never listened on, so that no other process is given it.

    A connection to it is refused. A server that sets SO_REUSEADDR, as the standard library's and vLLM's do, can listen
    on it, end, and listen again.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = int(self._socket.getsockname()[1])

    def free(self) -> None:
        """Let the port go."""
        self._socket.close()
