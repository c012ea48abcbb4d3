"""A model divided over a mesh of processes by FSDP2: the groups in which its weights are gathered, and the way back.

Each layer of the language model is a group, the frozen parts of a student that see pictures are one together, and all
that is left (embeddings, head, last norm, what of the vision tower is trained) is one.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from vold.model.batching import collate
from vold.model.families import part_of
from vold.model.lora import BASE, adapted, adapters_of, is_adapter, with_adapter
from vold.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from vold.model.policy import Policy


@functools.cache
def mesh_of(device: str, world: int, within: int, limit: timedelta) -> DeviceMesh:
    """A mesh of `world` processes: weights are divided over `within` that follow each other, and every such group has
    a copy of them (hybrid sharding). Where one group is all, the mesh has one dimension.

    Operations of a mesh that PyTorch makes have a time-out of PyTorch's; here it is `limit`.
    """
    if within == world:
        return init_device_mesh(device, (world,))
    ranks = torch.arange(world).reshape(-1, within)
    groups = [dist.new_subgroups_by_enumeration(of.tolist(), timeout=limit)[0] for of in (ranks.T, ranks)]
    return DeviceMesh.from_group(groups, device, mesh=ranks, mesh_dim_names=("copies", "parts"))


def divide(policy: Policy, mesh: DeviceMesh, tower: Sequence[nn.Module] = ()) -> None:
    """Divide a model's weights, gradients and optimizer state over a mesh.

    Weights in training below float32 are kept in float32, added up in float32, and cast for every pass, as in
    `vold.training.optim.MasterAdamW`. Frozen ones stay as they are.

    Args:
        policy: the model.
        mesh: of processes, all of which must call this.
        tower: `frozen_parts` of it that whoever runs them gathers first, on all processes at once; others are gathered
            with all that lies in no layer.
    """
    model, dtype = policy.model, policy.model.dtype
    if tower:
        fully_shard(list(tower), mesh=mesh, reshard_after_forward=False)
    for layer in layers_of(policy):
        fully_shard(layer, mesh=mesh, mp_policy=_precision(layer.parameters(), dtype))
    left = [p for p in model.parameters() if not isinstance(p, DTensor)]
    fully_shard(model, mesh=mesh, mp_policy=_precision(left, dtype), reshard_after_forward=False)
    enter_by_trunk(policy)
    # FSDP2 finds its groups in the first pass through the whole, and sampling may come before any.
    pad = policy.chat.pad_id
    with torch.no_grad():
        policy.states(collate([Prompt((pad,))], [(pad,)], [(1,)], pad))
    model.reshard()


def layers_of(policy: Policy) -> list[nn.Module]:
    """The layers of the language model."""
    kinds, tower = policy.model._no_split_modules or (), policy.family.tower
    named = policy.model.named_modules()
    return [m for n, m in named if type(m).__name__ in kinds and not (tower and f".{tower}." in f".{n}.")]


def enter_by_trunk(policy: Policy) -> None:
    """Let a divided model's passes go through FSDP2, which gathers what lies in no layer."""
    model = policy.model
    model.trunk = types.MethodType(_trunk, model)
    register_fsdp_forward_method(model, "trunk")
    policy.trunk = model.trunk


def frozen_parts(policy: Policy) -> Iterator[nn.Module]:
    """The largest modules of tower and projector in which nothing is trained."""

    def below(name: str, module: nn.Module) -> Iterator[nn.Module]:
        weights = list(module.parameters())
        runs = not isinstance(module, nn.ModuleList)
        if runs and weights and part_of(name, policy.family) and not any(p.requires_grad for p in weights):
            yield module
        else:
            for child, inner in module.named_children():
                yield from below(f"{name}.{child}" if name else child, inner)

    if policy.is_vlm:
        yield from below("", policy.model.base_model)


def _precision(weights: Iterable[nn.Parameter], dtype: torch.dtype) -> MixedPrecisionPolicy:
    low = [p for p in weights if p.requires_grad and p.dtype != torch.float32]
    for p in low:
        p.data = p.data.float()
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if low else MixedPrecisionPolicy()


def _trunk(self: Any, **inputs: Any) -> torch.Tensor:
    states: torch.Tensor = self.base_model(**inputs).last_hidden_state
    return states


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A divided tensor put together, on every process; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Whole(NamedTuple):
    """A divided student put together on the CPU, on the first process; empty on the others.

    Attributes:
        weights: by their names without adapters.
        adapters: A and B of every layer that has some, by the names that PEFT's view of the model has for them.
    """

    weights: dict[str, torch.Tensor]
    adapters: dict[str, torch.Tensor]


def whole_state(policy: Policy, dtype: torch.dtype, *, plain: bool = False) -> Whole:
    """All weights of a divided student, in its own precision; every process must ask.

    Args:
        policy: the student.
        dtype: its precision: weights in training are kept in another.
        plain: without its adapters added in.
    """
    first = dist.get_rank() == 0
    model, layers = policy.model, adapted(policy.model) if policy.adapters is not None else {}
    tied = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    made: dict[object, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if is_adapter(name):
            continue
        key = tied.get(name, name)
        if key not in made:
            full = whole(value)
            if name in layers and not plain:
                full = with_adapter(full, layers[name], whole)
            made[key] = full.to("cpu", dtype if full.is_floating_point() else full.dtype) if first else value
        found[name.replace(BASE, ".")] = made[key]
    adapters = {n: whole(p).cpu() for n, p in adapters_of(policy.adapters)} if layers else {}
    return Whole(found, adapters) if first else Whole({}, {})
