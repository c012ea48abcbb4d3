"""How a part of a push gets from the trainer to the servers. Each says where it lies; the server does the rest."""

from __future__ import annotations

import itertools
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import torch

from vold.engines.deadline import Stop
from vold.engines.transfer import devices, segment
from vold.errors import SamplerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vold.engines.vllm import VllmClient

    Tensors = Mapping[str, torch.Tensor]

INIT = "/init_weight_transfer_engine"


class Carrier(Protocol):
    """Takes tensors to servers."""

    def meet(self) -> None:
        """Before a push: make sure that every server can be reached this way."""
        ...

    def send(self, tensors: Tensors, checksums: Mapping[str, str]) -> None:
        """Take a part of a push to every server, and return when all have done with it."""
        ...


def update(client: VllmClient, checksums: Mapping[str, str], **where: object) -> None:
    """Tell every server of a part, and where it lies; one that does not take it is asked what it holds later on."""
    client.each("/update_weights", {"update_info": {"checksums": checksums, **where}}, root=True, must=False)


class FileCarrier:
    """A file in a directory that run and servers see."""

    def __init__(self, client: VllmClient, directory: Path) -> None:
        self.client, self.directory = client, directory

    def meet(self) -> None:
        """Nobody has to be met."""
        if self.directory.is_dir():
            segment.sweep(self.directory)

    def send(self, tensors: Tensors, checksums: Mapping[str, str]) -> None:
        """As `Carrier.send`."""
        with segment.in_file(self.directory, tensors) as path:
            update(self.client, checksums, path=str(path))


class SharedMemoryCarrier:
    """Shared memory of the machine that run and servers are on."""

    def __init__(self, client: VllmClient) -> None:
        self.client = client

    def meet(self) -> None:
        """Nobody has to be met."""
        segment.sweep(segment.SHARED)

    def send(self, tensors: Tensors, checksums: Mapping[str, str]) -> None:
        """As `Carrier.send`."""
        with segment.in_shared_memory(tensors) as path:
            update(self.client, checksums, path=str(path))


class IpcCarrier:
    """Memory of the GPU that run and servers are on: nothing is copied but into one buffer."""

    def __init__(self, client: VllmClient) -> None:
        self.client = client

    def meet(self) -> None:
        """Nobody has to be met."""

    def send(self, tensors: Tensors, checksums: Mapping[str, str]) -> None:
        """As `Carrier.send`."""
        buffer = devices.packed(tensors.values()).cuda()
        update(self.client, checksums, handle=devices.share(buffer), table=devices.table_of(tensors))
        torch.cuda.ipc_collect()


class NcclCarrier:
    """NCCL's broadcast from the trainer's GPU to those of all servers' workers, over NVLink or the network.

    The trainer is rank 0 of a group of its own. It makes the group's name (NCCL's unique id) and sends it over HTTP,
    and every worker joins at its place: that of the server's first worker, and its own number. Where a server was
    started again, all make a new group.

    Args:
        client: the servers.
        join: joins a group as rank 0: number of members and name; it returns what broadcasts a buffer.
        name: makes a name.
    """

    def __init__(
        self,
        client: VllmClient,
        join: Callable[[int, bytes], Callable[[torch.Tensor], None]] | None = None,
        name: Callable[[], bytes] | None = None,
    ) -> None:
        self.client, self.join, self.name = client, join or join_nccl, name or torch.cuda.nccl.unique_id
        self.group = ""
        self._broadcast: Callable[[torch.Tensor], None]

    def meet(self) -> None:
        """Join a new group with all workers, unless all are in the present one."""
        replies = self.client.each("/collective_rpc", {"method": "vold_group"}, root=True)
        said = [w.get("group") for r in replies if r is not None for w in r.value.get("results", [])]
        if self.group and set(said) == {self.group}:
            return
        workers = self._workers()
        firsts = list(itertools.accumulate(workers, initial=1))[:-1]
        self.group, world, name = secrets.token_hex(8), 1 + sum(workers), self.name()
        bases = [u.removesuffix("/v1") for u in self.client.urls]
        info = {"group": self.group, "unique_id": name.hex(), "world_size": world}
        with ThreadPoolExecutor(len(bases)) as threads:
            sent = [
                threads.submit(self.client.send, [base], INIT, {"init_info": {**info, "rank_offset": first}}, Stop())
                for base, first in zip(bases, firsts, strict=True)
            ]
            self._broadcast = self.join(
                world, name
            )  # all join at once: none comes back from it before the last is there
            for one in sent:
                one.result()

    def send(self, tensors: Tensors, checksums: Mapping[str, str]) -> None:
        """As `Carrier.send`. Servers wait in the broadcast while they are told of the part."""
        buffer = devices.packed(tensors.values())
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(update, self.client, checksums, group=self.group, table=devices.table_of(tensors))
            self._broadcast(buffer)
            told.result()

    def _workers(self) -> list[int]:
        """How many workers every server has."""
        replies = self.client.each("/get_world_size", get=True, root=True)
        said = [r.value.get("world_size") for r in replies if r is not None]
        found = [n for n in said if type(n) is int and 0 < n < 4096]
        if len(found) != len(self.client.urls):
            raise SamplerError(f"a {self.client.server} does not say how many workers it has", got=str(said)[:100])
        return found


def join_nccl(world: int, name: bytes) -> Callable[[torch.Tensor], None]:
    """Join a group as rank 0, with the GPU in use, and shake hands as vLLM's communicator does: add up one number."""
    nccl = torch.cuda.nccl
    member = nccl.init_rank(world, name, 0)
    nccl.all_reduce([torch.zeros(1, device="cuda")], comms=[member])

    def broadcast(buffer: torch.Tensor) -> None:
        nccl.broadcast([buffer.cuda()], 0, comms=[member])  # of a divided student the whole is on the host
        torch.cuda.current_stream().synchronize()

    return broadcast
