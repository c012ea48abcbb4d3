"""A teacher that is too large for one device: several processes divide its weights, and gather a layer at a time.

They are those of a node where it fits them, and nothing of it goes between nodes. Every pass gathers from all that
divide it, so they pass equally often: whoever has less to score passes a token of no matter
(`vold.engines.teachers.inprocess.InProcessTeacher.score`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.model.certified import certified
from vold.model.loading import load_empty, load_model
from vold.model.memory import device_memory, divides_teachers, inprocess_teachers
from vold.model.reading import read_config
from vold.model.sending import fill, is_reader, lay_out, node_mesh, whole_tensors
from vold.model.sharding import divide
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from vold.model.parallel import Processes
    from vold.model.policy import Policy
    from vold.run.recipe import Recipe, Within


def divides(recipe: Recipe, group: Processes) -> Within | None:
    """Which processes of a run divide its teachers, if any: by `run.shard_teacher`, and for `auto` by the plan of the
    device with the least memory. All processes must ask."""
    if group.world > 1:
        student, *teachers = (read_config(resolve(m.path)) for m in (recipe.learner, *inprocess_teachers(recipe)))
        room = min(group.gather(device_memory(recipe.run.device)))
        group.teachers_divided = divides_teachers(
            recipe, student, *teachers, devices=group.world, room=room, node=group.node
        )
    return group.teachers_divided


def load_divided(recipe: Recipe, path: str, dtype: str, group: Processes, within: Within) -> Policy:
    """A teacher of which each process holds a part on its device.

    One process of a node reads it into the host's memory, and hands every part out.
    """
    on_host = recipe.model_copy(update={"run": recipe.run.model_copy(update={"device": "cpu"})})
    device = "cuda" if recipe.run.device != "cpu" and torch.cuda.is_available() else "cpu"
    node, mesh = node_mesh(group, device), group.mesh(device, within)
    policy = load_model(on_host, path, dtype) if (reads := is_reader(node)) else load_empty(path, dtype)
    policy.model.requires_grad_(False)
    lay_out(policy.model, "cpu", group, reads=reads)
    whole = whole_tensors(policy.model)
    divide(policy, mesh)
    fill(policy.model, whole, node)
    policy.ban_placeholders()  # on the device, where the model is now
    policy.certificate = certified(policy, recipe.run.dir, group)
    return policy
