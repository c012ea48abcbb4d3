"""The section of a recipe that spreads a run over several machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from vold.errors import ConfigError
from vold.run.model_sections import RolloutServer, groups_of
from vold.run.section import Section
from vold.run.teacher_sections import named_teachers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.run.model_sections import Server
    from vold.run.recipe import Recipe


class Cluster(Section):
    """Machines that Ray places servers and training processes on (`pip install 'vold[cluster]'`)."""

    nodes: int = Field(gt=0, le=4096)
    """Machines. A training stage runs on so many, with equally many processes on each; all see the same files."""
    gpus: int = Field(ge=0, le=64)
    """GPUs of each machine; 0: all work is done on processors."""
    processes: int | None = Field(None, gt=0, le=1024)
    """Training processes on each machine, one a GPU. If absent the GPUs that the servers of stage 2 leave; one where
    `gpus` is 0."""


def training_processes(recipe: Recipe) -> int:
    """How many processes a training stage has on each machine of the recipe's cluster; 0 where no GPU is left."""
    cluster = recipe.cluster
    assert cluster is not None
    if cluster.processes is not None:
        return cluster.processes
    engine = recipe.distill.engine if recipe.distill is not None else None
    sections = [t.server for t in recipe.scoring_models] + [engine]
    launches = [s.launch for s in sections if s is not None and s.launch is not None]
    used = sum(len(group) for launch in launches for group in groups_of(launch.devices))
    return max(0, cluster.nodes * cluster.gpus - used) // cluster.nodes if cluster.gpus else 1


def cluster_mistakes(recipe: Recipe) -> Iterator[ConfigError]:
    """What goes on one machine only."""
    if recipe.cluster is None:
        return
    sections: dict[str, Server | None] = {f"{w}.server": t.server for w, t in named_teachers(recipe).items()}
    stages = {"distill": recipe.distill, "balance": recipe.balance}
    sections |= {f"{where}.engine": stage.engine for where, stage in stages.items() if stage is not None}
    for where, section in sections.items():
        if section is not None and section.sleep:
            yield ConfigError(
                "servers that Ray places have GPUs of their own, and do not take turns",
                where=f"{where}.sleep",
                got="true with `cluster`",
                fix="leave out `sleep`, or `cluster`",
            )
        away = ("ipc",) if recipe.cluster.nodes == 1 else ("ipc", "shared_memory")
        if isinstance(section, RolloutServer) and section.transfer in away:
            yield ConfigError(
                "weights go this way within one machine, or one GPU, only",
                where=f"{where}.transfer",
                got=f"{section.transfer} with `cluster`",
                fix="use files, or nccl",
            )
