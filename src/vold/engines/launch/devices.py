"""GPUs of the servers that a recipe starts: that they are there, and that no two programs have one at the same time."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING

import torch

from vold.errors import ConfigError
from vold.run.cluster_section import training_processes
from vold.run.settings import TRAINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.engines.launch.spec import Wanted
    from vold.run.cluster_section import Cluster
    from vold.run.recipe import Recipe

TRAINS = ("sft", "align", "balance", "distill")
"""Stages whose own process works on a GPU while servers do."""


def check_devices(recipe: Recipe, stage: str, servers: Sequence[Wanted]) -> None:
    """See that a stage's servers can run where the recipe puts them.

    Raises:
        ConfigError: a GPU is not there, or is given to two that do not take turns; or a cluster has too few.
    """
    if recipe.cluster is not None:
        _check_cluster(recipe, recipe.cluster, stage, servers)
        return
    there = gpus() if any(one.devices for one in servers) else ()
    for server in servers:
        for gpu in server.devices:
            if there is not None and gpu not in there:
                raise ConfigError(
                    "there is no such GPU",
                    where=f"{server.key}.launch.devices",
                    got=f"{gpu}; this machine has {', '.join(map(str, there)) or 'none'}",
                    fix="give numbers that `nvidia-smi` shows, or `cpu`",
                )
    for a, b in itertools.combinations(servers, 2):
        both = {*a.devices} & {*b.devices}
        if both and not (a.sleep and b.sleep):
            raise _taken(f"{a.key} and {b.key}", min(both), stage, a if not a.sleep else b)
    for server in servers:
        both = {*server.devices} & {*own_gpus(recipe, stage)}
        if both and not server.sleep:
            raise _taken(f"{server.key} and this process", min(both), stage, server)


def _check_cluster(recipe: Recipe, cluster: Cluster, stage: str, servers: Sequence[Wanted]) -> None:
    """Ray chooses the GPUs, so that only their number counts."""
    if not cluster.gpus:
        return
    widest = max((len(server.devices) for server in servers), default=0)
    each = training_processes(recipe) if stage in TRAINED else 0
    mine = cluster.nodes * each if each else int(stage in TRAINS)
    used = sum(len(server.devices) for server in servers)
    if stage in TRAINED and not each:
        got = f"none of {cluster.nodes * cluster.gpus} is left on each machine"
    elif used + mine > cluster.nodes * cluster.gpus or widest > cluster.gpus or each > cluster.gpus:
        got = f"{used} for servers, up to {widest} for one, and {mine} for `{stage}` itself"
    else:
        return
    raise ConfigError(
        f"the machines have too few GPUs for `{stage}`",
        where="cluster",
        got=f"{got}; {cluster.nodes} x {cluster.gpus} are there",
        fix="give servers fewer `devices`, set cluster.processes lower, or take more machines",
    )


def _taken(who: str, gpu: int, stage: str, awake: Wanted) -> ConfigError:
    return ConfigError(
        f"{who} are given one GPU at the same time",
        where=f"{awake.key}.launch.devices",
        got=f"GPU {gpu} in `{stage}`",
        fix=f"give them GPUs of their own, or let them take turns: {awake.key}.sleep=true",
    )


def own_gpus(recipe: Recipe, stage: str) -> tuple[int, ...]:
    """Those that the processes of this stage work on themselves, as far as they are known by number."""
    if stage not in TRAINS or recipe.run.device == "cpu" or not torch.cuda.is_available():
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(n) for n in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    mine = numbers[: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))]
    return tuple(int(n) for n in mine if n.strip().isdecimal())


def gpus() -> tuple[int, ...] | None:
    """The GPUs of this machine by number, whatever this process may see of them; None where nothing tells."""
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        return tuple(int(n) for n in said)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None if torch.cuda.is_available() else ()
