"""Tensors from one GPU to another process, without the host between: one buffer of bytes, and a table of what is in it.

Both sides run this; none of it needs vLLM. A handle of CUDA's interprocess memory is sent as numbers and hexadecimal
text, not as the pickle that PyTorch and vLLM make of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vold.run.records import JsonObject

Table = list[tuple[str, str, list[int]]]
"""Name, element type and shape of each tensor in a buffer, in order."""
ALIGNED = 16
"""Every tensor begins at a multiple of so many bytes: a view of another type must."""


def table_of(tensors: Mapping[str, torch.Tensor]) -> Table:
    """What stands beside a buffer."""
    return [(n, str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in tensors.items()]


def packed(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """One buffer of bytes, where the first of the tensors is."""
    flat = [t.detach().contiguous().flatten().view(torch.uint8) for t in tensors]
    return torch.cat([torch.nn.functional.pad(f.to(flat[0].device), (0, -f.numel() % ALIGNED)) for f in flat])


def size_of(table: Table) -> int:
    """Bytes of a buffer."""
    return sum(_end(_bytes(kind, shape)) for _, kind, shape in table)


def unpacked(buffer: torch.Tensor, table: Table) -> dict[str, torch.Tensor]:
    """The tensors of a buffer, as views of it.

    Raises:
        ValueError: the table names no element type, or more than there is.
    """
    out, place = dict[str, torch.Tensor](), 0
    for name, kind, shape in table:
        size = _bytes(kind, shape)
        if place + size > buffer.numel():
            raise ValueError(f"{name} ends behind the {buffer.numel()} bytes that came")
        out[name] = buffer[place : place + size].view(_type(kind)).view(shape)
        place += _end(size)
    return out


def _type(kind: str) -> torch.dtype:
    found = getattr(torch, kind, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{kind!r} is no element type")
    return found


def _bytes(kind: str, shape: list[int]) -> int:
    return _type(kind).itemsize * torch.Size(shape).numel()


def _end(size: int) -> int:
    return size + -size % ALIGNED


def gpu_of(device: torch.device) -> str:
    """The name that a GPU has in every process of its machine."""
    return str(torch.cuda.get_device_properties(device).uuid)


def share(buffer: torch.Tensor) -> JsonObject:
    """A handle of a buffer on a GPU for another process of this machine, as JSON. The buffer must outlive its use."""
    torch.cuda.synchronize(buffer.device)
    parts = buffer.untyped_storage()._share_cuda_()
    return {"gpu": gpu_of(buffer.device), "parts": [p.hex() if isinstance(p, bytes) else p for p in parts[1:]]}


def shared(handle: JsonObject, device: torch.device) -> torch.Tensor:
    """The buffer of another process behind a handle.

    Raises:
        ValueError: it is on another GPU, or no handle.
    """
    if handle.get("gpu") != gpu_of(device):
        raise ValueError(f"it lies on GPU {handle.get('gpu')}, this process is on {gpu_of(device)}")
    torch.cuda.init()
    storage = torch.UntypedStorage._new_shared_cuda(device.index, *handle_parts(handle))
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


def handle_parts(handle: JsonObject) -> list[Any]:
    """What CUDA and PyTorch want to know of a handle, in PyTorch's order: memory, size, offset, counter of users, its
    offset, event, and whether to wait for that.

    Raises:
        ValueError: it is no handle.
    """
    kinds, parts = (str, int, int, str, int, str, bool), handle.get("parts")
    if not isinstance(parts, list) or [type(p) for p in parts] != list(kinds):
        raise ValueError(f"{str(handle)[:200]} is no handle of a GPU's memory")
    return [bytes.fromhex(p) if isinstance(p, str) else p for p in parts]
