"""A training stage of a run on several machines: the run starts its servers and its processes, and waits for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

from vold.engines.launch.processes import TrainingProcesses
from vold.engines.launch.serving import FOLDER, keeping
from vold.errors import ConfigError
from vold.model.parallel import processes
from vold.run.placed import placed
from vold.training.stage import enter_stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vold.run.recipe import Recipe


def on_machines(
    name: Literal["sft", "distill"],
) -> Callable[[Callable[[Recipe], Path]], Callable[[Recipe], Path]]:
    """Decorates what runs a training stage: with `cluster` in the recipe its processes do, on the machines.

    The function may then raise ConfigError besides, as `vold.engines.launch.cluster.Machines`.
    """

    def decorate(work: Callable[[Recipe], Path]) -> Callable[[Recipe], Path]:
        @functools.wraps(work)
        def inside(recipe: Recipe) -> Path:
            if recipe.cluster is None or placed():
                return work(recipe)
            if processes().world > 1:
                raise ConfigError(
                    "a recipe with `cluster` starts its processes itself",
                    where="cluster",
                    got="torchrun",
                    fix=f"start `vold {name}` without torchrun, or leave out `cluster`",
                )
            stage = enter_stage(recipe, name, getattr(recipe, name))
            if not stage.finished:
                with keeping() as servers:
                    told = servers.told(recipe, name, None)
                    assert servers.machines is not None
                    TrainingProcesses(servers.machines, recipe, name, stage.directory / FOLDER, told).run()
            return stage.final

        return inside

    return decorate
