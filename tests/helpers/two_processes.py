"""Runs stages of several recipes in turn, STAGE=RECIPE.yaml ...: those after NODESxEACH in a world of pretended nodes.
STAGE=RECIPE.yaml@STEP is killed before that step, its last state being whole; what it leaves is said in a line of JSON.
A kind of model is tried once in each process."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmark_scripts import load
from killed import write_states_at_once
from tried import every_time
from vold import cli
from vold.run.recipe import load_recipe
from vold.training.stage import Training
from vold.training.state_writer import SHARDS


def killed_before(last: int) -> None:
    """The training of this process is."""
    steps = Training.steps
    write_states_at_once()

    def until(self: Training[Any]) -> Iterator[int]:
        for step in steps(self):
            if step == last:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step

    Training.steps = until  # type: ignore[method-assign]


def run(jobs: list[str]) -> None:
    for job in jobs:
        stage, file, last = split(job)
        if last:
            killed_before(int(last))
        if status := cli.main([stage, file]):
            sys.exit(status)


def split(job: str) -> tuple[str, str, str]:
    stage, _, words = job.partition("=")
    file, _, last = words.partition("@")
    return stage, file, last


def run_in_worlds(words: list[str]) -> None:
    worlds = list[tuple[int, int, list[str]]]()
    for word in words:
        if shape := re.fullmatch(r"(\d+)x(\d+)", word):
            worlds.append((int(shape[1]), int(shape[2]), []))
        else:
            worlds[-1][2].append(word)
    for nodes, each, jobs in worlds:
        failed = load("nodes").fork(nodes, each, lambda jobs=jobs: run(jobs))
        stage, file, last = split(jobs[-1])
        if not last:
            if failed:
                sys.exit(1)
            continue
        states = [*(load_recipe(file).run.dir / stage).glob("step-*")]
        print(json.dumps({state.name: (state / SHARDS).is_dir() for state in states}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    every_time(False)
    run_in_worlds(sys.argv[1:])
