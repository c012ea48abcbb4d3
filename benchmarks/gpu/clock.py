"""Seconds and bytes of work on a device."""

from __future__ import annotations

import contextlib
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GIB = 2**30


def is_real(device: str) -> bool:
    """Whether it is a GPU of NVIDIA's, and not the suite's pretended one."""
    return device == "cuda" and torch.version.cuda is not None


def wait(device: str) -> None:
    """Until the device has caught up."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(device: str, work: Callable[[], Any], turns: int = 3) -> float:
    """The median of some turns, after one that is not counted."""
    found = []
    for _ in range(turns + 1):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def once(device: str, work: Callable[[], Any]) -> float:
    """Seconds of the first turn."""
    return seconds_and_peak(device, work)[0]


def seconds_and_peak(device: str, work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one turn, and the GiB that it took at its peak beside what was there; 0 on a CPU."""
    before = 0
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    work()
    wait(device)
    spent = time.perf_counter() - began
    return spent, (torch.cuda.max_memory_allocated() - before) / GIB if device == "cuda" else 0.0


def own_work(device: str, work: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Seconds that a card itself works, in all and by kernel, longest first; without one of PyTorch's operators."""
    real = is_real(device)
    with (
        warnings.catch_warnings(),
        profile(activities=[ProfilerActivity.CUDA if real else ProfilerActivity.CPU]) as run,
    ):
        warnings.simplefilter("ignore")
        work()
        wait(device)
    field = "self_device_time_total" if real else "self_cpu_time_total"
    found = {e.key: getattr(e, field) / 1e6 for e in run.key_averages()}
    return sum(found.values()), dict(sorted(found.items(), key=lambda one: -one[1]))


@contextlib.contextmanager
def host_waits(device: str) -> Iterator[list[str]]:
    """The warnings that CUDA gives inside, one for each time that the host waits for the card."""
    said: list[str] = []
    if not is_real(device):
        yield said
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
    finally:
        torch.cuda.set_sync_debug_mode("default")
    said += [str(w.message) for w in caught if "synchroniz" in str(w.message).lower()]
