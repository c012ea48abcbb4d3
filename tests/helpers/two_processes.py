"""Runs stages of several recipes in turn. Started by torchrun, arguments STAGE=RECIPE.yaml ...; or alone, and with
NODESxEACH before them, on pretended nodes."""

from __future__ import annotations

import sys

import torch

from benchmark_scripts import load
from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.training.sft import sft


def run(jobs: list[str]) -> None:
    for job in jobs:
        stage, _, file = job.partition("=")
        {"sft": sft, "distill": distill}[stage](load_recipe(file))


if __name__ == "__main__":
    torch.set_num_threads(1)
    first, *jobs = sys.argv[1:]
    if "=" in first:
        run([first, *jobs])
    else:
        nodes, each = map(int, first.split("x"))
        sys.exit(load("nodes").fork(nodes, each, lambda: run(jobs)))
