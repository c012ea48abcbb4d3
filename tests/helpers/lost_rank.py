"""Worlds of processes, in each of which one is killed, stopped, stands still, fails or only works for long.

Each argument is a `World` as JSON. What its processes say is put beside its recipe, in NAME.RANK.err. Prints the exit
status of each world's first process. What was stopped is killed at last.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from vold import cli
from vold.engines.launch.server import HeldPort
from vold.errors import TeacherError
from vold.run.recipe import load_recipe
from vold.training.stage import Training


@dataclass
class World:
    """`each` processes on each of `nodes` nodes, and what becomes of one of them."""

    recipe: str
    stage: str
    nodes: int
    each: int
    rank: int
    how: str
    phase: str
    step: int


def lose(world: World) -> None:
    if world.how == "works":  # twice as long as the others wait for one that does nothing
        end = time.monotonic() + 120 * load_recipe(world.recipe).run.timeout_minutes
        while time.monotonic() < end:
            pass
    elif world.how == "stands":
        threading.Event().wait()
    elif world.how == "fails":
        raise TeacherError("the teacher has left")
    else:
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[world.how])


def process(world: World, rank: int, port: int) -> int:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world.nodes * world.each),
        "RANK": str(rank), "LOCAL_RANK": str(rank % world.each), "LOCAL_WORLD_SIZE": str(world.each),
    }  # fmt: skip
    with Path(world.recipe).with_suffix(f".{rank}.err").open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    enter = Training.steps

    def steps(self: Training) -> object:  # type: ignore[type-arg]
        phase = self.phase

        def entered(name: str) -> object:
            if (rank, name, self.done) == (world.rank, world.phase, world.step):
                self.stage.group.enter(name, self.done)
                lose(world)
            return phase(name)  # type: ignore[arg-type]

        self.phase = entered  # type: ignore[method-assign, assignment]
        return enter(self)

    Training.steps = steps  # type: ignore[method-assign, assignment]
    return cli.main([world.stage, world.recipe])


def start(world: World, port: int) -> list[int]:
    pids = list[int]()
    for rank in range(world.nodes * world.each):
        pids.append(os.fork())
        if not pids[-1]:
            os._exit(process(world, rank, port))
    return pids


def main(worlds: list[World]) -> None:
    torch.set_num_threads(1)
    status = []
    ports = [HeldPort() for _ in worlds]
    for world, pids in [(world, start(world, port.number)) for world, port in zip(worlds, ports, strict=True)]:
        stopped = pids.pop(world.rank) if world.how == "stopped" else None
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        status.append(ended[0])
        if stopped is not None:
            os.kill(stopped, signal.SIGKILL)
            os.waitpid(stopped, 0)
    print(json.dumps(status))


if __name__ == "__main__":
    main([World(**json.loads(word)) for word in sys.argv[1:]])
