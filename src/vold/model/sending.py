"""The weights of a model that one process of a node reads, and sends to the others there a tensor at a time.

The others begin with a model without values: memory that nobody has written to takes none. Its tensors are laid out as
the reader's are, whatever of the files has made them so.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.distributed.device_mesh import DeviceMesh

    from vold.model.parallel import Processes


class Outline(NamedTuple):
    """A parameter or buffer without its values; `names` are several where modules share it."""

    names: tuple[str, ...]
    shape: torch.Size
    dtype: torch.dtype


def read_once(group: Processes, device: str, read: Callable[[], Any], empty: Callable[[], Any]) -> Any:
    """A model on `device`, read by one process of every node.

    Args:
        group: the processes; all must ask.
        device: that of this process.
        read: reads it, onto the host.
        empty: makes it on the host without values.
    """
    if group.world == 1:
        return read().to(device)
    mesh = node_mesh(group, torch.device(device).type)
    model = read().to(device) if (reads := is_reader(mesh)) else empty()
    lay_out(model, device, group, reads=reads)
    for _, tensor in _tensors(model):
        _send(tensor.detach(), mesh)
    return model


def node_mesh(group: Processes, device: str) -> DeviceMesh:
    """A mesh in whose last dimension are the processes of a node, or all where nodes are of different sizes; all must
    ask."""
    return group.mesh(device, "node" if len(set(group.gather(group.node))) == 1 else "world")


def is_reader(mesh: DeviceMesh) -> bool:
    """Whether this process reads for those beside it in a `node_mesh`."""
    return mesh.get_local_rank(mesh.ndim - 1) == 0


def lay_out(model: nn.Module, device: str, group: Processes, *, reads: bool) -> None:
    """Give a model without values, where this process does not read, tensors as the readers' are; all must ask."""
    told = group.gather(_outline(model) if reads else None)
    if reads:
        return
    own = _by_every_name(model)
    for one in next(o for o in told if o is not None):
        there = own[one.names[0]]
        made = torch.empty(one.shape, dtype=one.dtype, device=device)
        made = nn.Parameter(made, there.requires_grad) if isinstance(there, nn.Parameter) else made
        for name in one.names:
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, made)


def whole_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What `fill` sends, by name, before the model is divided."""
    return {name: tensor.detach() for name, tensor in _tensors(model)}


def fill(model: nn.Module, whole: dict[str, torch.Tensor], mesh: DeviceMesh) -> None:
    """Give a divided model its values, from the whole tensors of the reader; those of others are as large, and no more.
    One at a time is whole on the device."""
    reads = is_reader(mesh)
    for name, tensor in _tensors(model):
        full = whole.pop(name)
        full = full.to(tensor.device) if reads else torch.empty_like(full, device=tensor.device)
        _send(full, mesh)
        if isinstance(tensor, DTensor):
            part = distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.to_local().copy_(part.to_local())
        else:
            tensor.detach().copy_(full)


def _send(tensor: torch.Tensor, mesh: DeviceMesh) -> None:
    """From the reader to those beside it, as bytes: not every backend knows every type."""
    mine = tensor.contiguous()
    dist.broadcast(mine.reshape(-1).view(torch.uint8), group=mesh.get_group(mesh.ndim - 1), group_src=0)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once, in the same order everywhere."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _by_every_name(model: nn.Module) -> dict[str, torch.Tensor]:
    every = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return dict(itertools.chain(*every))


def _outline(model: nn.Module) -> list[Outline]:
    names: dict[int, list[str]] = {}
    for name, tensor in _by_every_name(model).items():
        names.setdefault(id(tensor), []).append(name)
    return [Outline(tuple(names[id(t)]), t.shape, t.dtype) for _, t in _tensors(model)]
