"""A teacher that is too large for one device: several processes divide its weights, and gather a layer at a time.

Every pass gathers from all processes, so all of them pass equally often: whoever has less to score passes a token of
no matter (`vold.engines.teachers.inprocess.InProcessTeacher.score`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch.distributed.fsdp import fully_shard

from vold.model.loading import load_model
from vold.model.memory import device_memory, divides_teachers, inprocess_teachers
from vold.model.reading import read_config
from vold.model.sharding import enter_by_trunk, layers_of
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from vold.model.parallel import Processes
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe


def divides(recipe: Recipe, group: Processes) -> bool:
    """Whether the processes of a run divide its teachers: by `run.shard_teacher`, and for `auto` by the plan of the
    device with the least memory. All processes must ask."""
    if group.world > 1:
        student, *teachers = (read_config(resolve(m.path)) for m in (recipe.learner, *inprocess_teachers(recipe)))
        room = min(group.gather(device_memory(recipe.run.device)))
        group.teachers_divided = divides_teachers(
            recipe, student, *teachers, devices=group.world, room=room, node=group.node
        )
    return group.teachers_divided


def load_divided(recipe: Recipe, path: str, dtype: str, group: Processes) -> Policy:
    """A teacher of which each process holds a part on its device.

    It is read into the host's memory, by one process of a machine after another, so that a host holds one whole copy.
    """
    on_host = recipe.model_copy(update={"run": recipe.run.model_copy(update={"device": "cpu"})})
    device = "cuda" if recipe.run.device != "cpu" and torch.cuda.is_available() else "cpu"
    mesh = group.mesh(device, group.world)
    here = int(os.environ.get("LOCAL_RANK", "0"))
    for turn in range(max(group.gather(here)) + 1):
        if turn == here:
            policy = divide(load_model(on_host, path, dtype), mesh)
        group.wait()
    return policy


def divide(policy: Policy, mesh: DeviceMesh) -> Policy:
    """Divide a frozen model over a mesh: each layer of the language model is gathered when it runs; all that is left is
    from the first pass on, until the model is told to reshard."""
    model = policy.model.requires_grad_(False)
    for layer in layers_of(policy):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    enter_by_trunk(policy)
    policy.ban_placeholders()  # on the device, where the model is now
    return policy
