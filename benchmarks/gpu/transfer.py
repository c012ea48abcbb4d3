"""Weights to another process that is on the same card, by CUDA IPC, and NCCL with no other member."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.clock import is_real, once, seconds
from benchmarks.gpu.pair import recipe_of
from vold.engines.transfer import devices
from vold.engines.transfer.carriers import IpcCarrier, join_nccl
from vold.engines.transfer.checksum import checksum
from vold.engines.transfer.receiver import Receiver
from vold.model.loading import load_student

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.gpu.pair import Given


class Other:
    """Stands for the client of a server, and hands what goes to it to a process at the other end of a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.report = pipe, dict[str, Any]()

    def each(self, _: str, body: dict[str, Any], **__: Any) -> None:
        """As `vold.engines.vllm.VllmClient.each`."""
        self.pipe.send(body["update_info"])
        self.report = self.pipe.recv()


def transfer(given: Given) -> dict[str, Any]:
    """All trained weights by `IpcCarrier` to a process of its own, which does what a server's worker does but for its
    loaders: GB/s with both checksums, and how many tensors came with another. `nccl`: whether a group of one member
    is joined, and broadcasts."""
    if not is_real(given.device):
        return {"left out": "a card's memory is shared on a GPU"}
    tensors = {name: p.detach() for name, p in load_student(recipe_of(given)).trainable()}
    size = sum(t.nbytes for t in tensors.values()) / 1e9
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    other = Other(ours)
    carrier: Any = IpcCarrier(other)  # type: ignore[arg-type]

    def push() -> None:
        carrier.send(tensors, {name: checksum(t) for name, t in tensors.items()})

    first, spent = once(given.device, push), seconds(given.device, push)
    packing = seconds(given.device, lambda: devices.packed(tensors.values()))
    report = other.report
    ours.close()
    process.join()
    return {
        "gigabytes": size,
        "seconds_first": first,
        "seconds": spent,
        "packing_seconds": packing,
        "gb_s": size / spent,
        "wrong": len(report["refused"]) + len(tensors.keys() ^ report["loaded"]),
        "nccl": alone(given.device),
    }


def receive(pipe: Connection) -> None:
    """What a worker of a server does with the parts that it is told of, until the other end is closed."""
    device, receiver = torch.device("cuda", 0), Receiver({})
    torch.zeros(1, device=device)
    while True:
        try:
            info = pipe.recv()
        except EOFError:
            return
        receiver.begin()
        came = devices.unpacked(devices.shared(info["handle"], device).clone(), info["table"])
        loaded = list[str]()
        receiver.take(came, info["checksums"], lambda pairs, loaded=loaded: loaded.extend(n for n, _ in pairs))
        torch.cuda.synchronize()
        pipe.send({"refused": receiver.refused, "loaded": set(loaded)})


def alone(device: str) -> bool:
    """Whether NCCL gives a name, lets its only member in, and leaves a buffer as it is."""
    buffer = torch.arange(1000, dtype=torch.uint8, device=device)
    join_nccl(1, torch.cuda.nccl.unique_id())(buffer)
    return bool((buffer.cpu() == torch.arange(1000, dtype=torch.uint8)).all())
