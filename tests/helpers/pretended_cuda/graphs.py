"""Recorded graphs of a card: what is recorded is not done, and a replay reads and writes the memory it was recorded on.

A wait of the host while one is recorded is refused, as CUDA refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORDING: list[CUDAGraph] = []
"""The graph that is being recorded, if any."""
ON_REPLAY: list[Callable[[], None]] = []
"""What hears of every replay."""


def tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


class CUDAGraph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._work: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def replay(self) -> None:
        for hear in ON_REPLAY:
            hear()
        with _disable_current_modes():
            for func, args, kwargs, found in self._work:
                for there, new in zip(tensors([found]), tensors([func(*args, **kwargs)]), strict=True):
                    if there.data_ptr() != new.data_ptr():
                        there.copy_(new)

    def about_to(self, func: Any, args: Any, kwargs: Any) -> None:
        """Remember what an operator is going to write over."""
        named = zip(func._schema.arguments, args, strict=False)
        written = [v for a, v in named if a.alias_info is not None and a.alias_info.is_write]
        written += [kwargs[a.name] for a in func._schema.arguments if a.name in kwargs and a.alias_info is not None]
        self._before += [(t, t.clone()) for t in tensors(written)]

    def did(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """An operator has come that a replay does again."""
        self._work.append((func, args, kwargs, found))

    def undo(self) -> None:
        """Nothing of it has happened."""
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()


class graph:
    """`torch.cuda.graph`, the block in which one is recorded."""

    def __init__(self, cuda_graph: CUDAGraph, pool: object = None) -> None:
        self._graph = cuda_graph

    def __enter__(self) -> None:
        torch.cuda.synchronize()
        RECORDING.append(self._graph)

    def __exit__(self, *_: object) -> None:
        RECORDING.clear()
        with _disable_current_modes():
            self._graph.undo()
