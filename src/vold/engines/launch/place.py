"""A place on a machine of a cluster: the actor of Ray that starts one server there, or the training processes of the
machine, and watches them. It holds no tensor and hands none on. Ray itself is not imported here, so that what a
machine does can be read, and typed, without it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vold.engines.launch.server import HeldPort, LaunchedServer, how_it_ended, kept, last_words, tell_to_end
from vold.engines.launch.spec import OF_TORCHRUN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from vold.engines.launch.spec import Wanted

OF_THE_MACHINE = ("CUDA_VISIBLE_DEVICES", "HOSTNAME", "TMPDIR", "XDG_RUNTIME_DIR", "PWD")
"""Variables that Ray or the machine sets, and that a run does not bring along."""


class Look(NamedTuple):
    """How a server is: its base address once it answers, why it is not started any more, and what it has said of its
    starts since the last look."""

    url: str
    failure: str
    said: list[str]


class Where(NamedTuple):
    """A place: Ray's id of the machine, and the GPUs that are this place's own."""

    node: str
    gpus: tuple[int, ...]


class Place:
    """One place.

    Args:
        environment: of the command that runs, for what is started here.
        directory: its working directory, which this machine sees as well.
    """

    def __init__(self, environment: Mapping[str, str], directory: str) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's, which is 1
        os.environ.update(environment)
        os.chdir(directory)
        self._server: LaunchedServer | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._port: HeldPort | None = None
        self._said: list[str] = []
        self._ending = threading.Event()

    def where(self) -> Where:
        """Where it is."""
        import ray

        gpus = tuple(int(n) for n in ray.get_gpu_ids())
        return Where(ray.get_runtime_context().get_node_id(), gpus)

    def serve(self, spec: Wanted, directory: Path, key: str, address: str) -> None:
        """Start a server; `look` says how it is. Args: `LaunchedServer`."""
        spec = dataclasses.replace(spec, given=self.where().gpus)
        self._server = LaunchedServer(spec, directory, key, address, self._said.append)

    def look(self) -> Look:
        """How the server is."""
        server = self._server
        assert server is not None
        said, self._said[:] = list(self._said), []
        return Look(server.url if server.ready.is_set() else "", server.failure, said)

    def port(self) -> int:
        """A port of this machine, held for the first process of a training stage."""
        self._port = self._port or HeldPort()
        return self._port.number

    def train(self, words: list[str], variables: dict[str, str], log: Path) -> str:
        """Run a program until it ends, or is told to.

        Args:
            words: it, without the interpreter.
            variables: for it alone.
            log: takes its output.

        Returns:
            Why it ended; empty where it ended well.
        """
        dropped = (*OF_TORCHRUN, "RANK", "WORLD_SIZE")
        env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        order = {"command": [sys.executable, *words], "env": env | variables, "cwd": os.getcwd(), "log": str(log)}
        with kept(order | {"record": str(log.with_suffix(".json"))}) as keeper:
            self._keeper = keeper
            if self._ending.is_set():
                tell_to_end(keeper)
            assert keeper.stdout is not None
            told = keeper.stdout.read()
        status, tail = last_words(told)
        return "" if status == 0 else how_it_ended(status, tail)

    def stop(self) -> None:
        """End what was started here, and come back when it is gone; `train` then comes back as well."""
        self._ending.set()
        tell_to_end(self._keeper)
        if self._server is not None:
            self._server.stop()
            self._server.wait()
