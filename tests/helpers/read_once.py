"""What the processes of worlds on pretended nodes read of models, and what they then hold. Prints a line of JSON each.

Arguments: a directory with the models of `tiny.recipe`. Processes that are not the first of their node work in `bare`
there, where models have no weights, and the others in `whole`: a recipe has relative paths.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import torch
import yaml
from transformers import modeling_utils

from benchmark_scripts import load
from vold.engines.teachers.inprocess import open_backend
from vold.model import reading
from vold.model.loading import load_student
from vold.model.parallel import processes
from vold.model.sharding import whole
from vold.run.recipe import recipe_from

WORLDS = (1, 1), (1, 2), (2, 2)
"""Nodes, and processes on each."""


def digest(model: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(whole(tensor.detach()).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def count_reads() -> Counter[str]:
    """Files of weights that this process opens from now on, whole or their heads alone."""
    opened = Counter[str]()

    def counting(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened[Path(file).resolve().parent.name] += 1
        return safetensors.safe_open(file, *args, **kwargs)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).endswith(".safetensors"):
            opened[Path(args[0]).resolve().parent.name] += 1

    vars(modeling_utils)["safe_open"] = vars(reading)["safe_open"] = counting
    sys.addaudithook(audit)
    return opened


def work(home: Path) -> None:
    group = processes()
    os.chdir(home / ("bare" if group.rank % group.node else "whole"))
    opened = count_reads()
    raw = yaml.safe_load((home / "recipe.yaml").read_text())
    found: dict[str, Any] = {"student": digest(load_student(recipe_from(raw, where="test"), group=group).model)}
    for how in ("never", "always"):
        raw["run"]["shard_teacher"] = how
        recipe = recipe_from(raw, where="test")
        assert recipe.teacher is not None
        (model,) = open_backend(recipe, recipe.teacher).modules
        found[f"teacher, {how} divided"] = digest(model)
    told = group.gather({"opened": opened, **found})
    if group.first:
        print(json.dumps(told))


if __name__ == "__main__":
    for nodes, each in WORLDS:
        if load("nodes").fork(nodes, each, lambda: work(Path(sys.argv[1]))):
            sys.exit(1)
