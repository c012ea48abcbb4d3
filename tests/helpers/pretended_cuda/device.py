"""The pretended device as Python sees it: `torch.cuda`, and a watch over all that passes PyTorch's dispatcher.

Only in a process whose first act was to load the backend; see `pretended_cuda.run`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from package import SOURCE
from pretended_cuda import graphs
from pretended_cuda.attention import Sequences, attention
from pretended_cuda.graphs import tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

aten = torch.ops.aten
CARD = torch.device("cuda:0")
MEMORY = 80 * 2**30
"""Bytes that the card says it has."""
VOLD = str(SOURCE / "vold") + "/"
WAITS = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.multinomial.default,
}  # fmt: skip
"""Operators whose result has a size, or is a number, that the host must know: it waits for the card."""
INDEX = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put_.default, aten.index_put.default,
         aten._index_put_impl_.default}  # fmt: skip


@dataclass
class Counts:
    """What happened on the card, by the line of vold that asked for it (`room/file.py:line`).

    Attributes:
        operators: calls of PyTorch's operators, views included.
        names: the same by the operator's name.
        waits: the host stood still until the card had caught up: a number or a size was asked for, or a copy that
            blocks, to the card as from it.
        copies: of tensors between host and card, in either direction.
        to_card: bytes of them; `to_host` likewise.
        to_host: see `to_card`.
        attention: calls by kernel, type, mask and shared keys, such as `flash bfloat16 grouped`; without a line.
    """

    operators: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    to_card: Counter[str] = field(default_factory=Counter)
    to_host: Counter[str] = field(default_factory=Counter)
    attention: Counter[str] = field(default_factory=Counter)

    def totals(self) -> dict[str, int]:
        """Every attribute's sum."""
        return {name: sum(counter.values()) for name, counter in vars(self).items()}


_COUNTING: list[Counts] = []


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """Counts of all that happens inside. Those of an outer block go on."""
    counts = Counts()
    _COUNTING.append(counts)
    try:
        yield counts
    finally:
        _COUNTING.pop(next(i for i, c in enumerate(_COUNTING) if c is counts))


def line() -> str:
    """The innermost line of vold that is being run; `backward` where autograd's thread runs none."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(VOLD):
            return f"{name.removeprefix(VOLD)}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward" if torch._C._current_graph_task_id() != -1 else "elsewhere"


# ---- what the host waits for ----------------------------------------------------------------------------------------


_PENDING: list[tuple[torch.Tensor, torch.Tensor]] = []
"""Copies to pinned memory of the host that are under way, and what will have arrived."""


def _arrive() -> None:
    """The host has waited for the card: copies that were under way are there."""
    while _PENDING:
        target, value = _PENDING.pop()
        target.copy_(value)


def _waited(what: str) -> None:
    if graphs.RECORDING:
        raise RuntimeError("operation not permitted when stream is capturing")
    _arrive()
    where = line()
    for counts in _COUNTING:
        counts.waits[f"{where} {what}"] += 1


def _copied(source: torch.Tensor, target: torch.Tensor, *, blocks: bool) -> None:
    """A copy between host and card. One to pageable memory blocks whatever is asked; one to pinned memory that does not
    is not there before the host has waited for something: until then a float is NaN, and a number 1s."""
    where, size = line(), target.nbytes
    for counts in _COUNTING:
        counts.copies[where] += 1
        (counts.to_card if target.is_cuda else counts.to_host)[where] += size
    if blocks or not (target.is_cuda or target.is_pinned()):
        _waited("blocking copy to the " + ("card" if target.is_cuda else "host"))
    elif not target.is_cuda:
        _PENDING.append((target, target.clone()))
        target.fill_(float("nan") if target.is_floating_point() else 1)


def _index(base: torch.Tensor, indices: Sequence[torch.Tensor | None], *value: Any) -> int:
    """How many masks an indexing operator has to count the ones of. A number of the host's is filled in by mask."""
    for index in indices:
        if index is not None and base.is_cuda and not index.is_cuda:
            _copied(index, index.to(CARD), blocks=True)
    if value and value[0].numel() == 1 and not value[0].is_cuda:
        return 0
    return sum(i is not None and i.is_cuda and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How often the host waits in a call that is no copy."""
    if func in WAITS:
        return 1
    if func in INDEX:
        return _index(*args[:3])
    if func is aten.repeat_interleave.Tensor:
        return int(kwargs.get("output_size") is None)
    if func is aten.isin.Tensor_Tensor:  # among many it sorts, and counts the kinds
        return int(args[1].numel() >= 10 * args[0].numel() ** 0.145)
    return 0


# ---- the watch ------------------------------------------------------------------------------------------------------


@functools.cache
def _made_of_others(func: Any) -> bool:
    """In inference mode an operator that is made of others comes as it is."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


class Watch(TorchDispatchMode):
    """Counts what touches the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _made_of_others(func):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        for graph in graphs.RECORDING:
            graph.about_to(func, args, kwargs)
        found = func(*args, **kwargs)
        if any(t.is_cuda for t in tensors((*args, *kwargs.values(), found))):
            self.count(func, args, kwargs, found)
            for graph in graphs.RECORDING:
                graph.did(func, args, kwargs, found)
        return found

    def count(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        where, name = line(), str(func)
        for counts in _COUNTING:
            counts.operators[where] += 1
            counts.names[name] += 1
        if func is aten._to_copy.default and args[0].is_cuda != found.is_cuda:
            _copied(args[0], found, blocks=not kwargs.get("non_blocking", False))
        elif func is aten.lift_fresh.default and found.is_cuda:  # made of a list on the host
            _copied(found.cpu(), found, blocks=True)
        elif func is aten.copy_.default and args[0].is_cuda != args[1].is_cuda:
            _copied(args[1], args[0], blocks=not (len(args) > 2 and args[2]))
        for _ in range(_waits(func, args, kwargs)):
            _waited(name.removeprefix("aten.").partition(".")[0])


# ---- what the host's build has no code for --------------------------------------------------------------------------


def _refuse_factors(dtype: torch.dtype, *factors: torch.Tensor) -> None:
    if dtype != torch.float32 or any(f.dtype not in (torch.float16, torch.bfloat16) for f in factors):
        raise RuntimeError(
            f"out_dtype is only supported for float32 and factors of half precision, got {dtype} and {factors[0].dtype}"
        )


def _mm(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    _refuse_factors(dtype, a, b)
    return a.float() @ b.float()


def _addmm(
    total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, *, beta: float = 1, alpha: float = 1
) -> torch.Tensor:
    _refuse_factors(dtype, a, b)
    if total.dtype not in (dtype, a.dtype):
        raise RuntimeError(f"self dtype must match either out_dtype or mat1 dtype, got {total.dtype}")
    return beta * total.float() + alpha * (a.float() @ b.float())


def _products() -> torch.library.Library:
    """Products of half precision that are summed and kept in float32, which CUDA alone has."""

    def into(make: Any) -> Any:
        def made(*args: Any, out: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            return out.copy_(make(*args, **kwargs))

        return made

    library = torch.library.Library("aten", "IMPL")
    for name, make in (("mm.dtype", _mm), ("addmm.dtype", _addmm), ("bmm.dtype", _mm)):
        library.impl(name, make, "CUDA")
        library.impl(f"{name}_out", into(make), "CUDA")
    return library


def _sequences(seen: Callable[[str], None]) -> torch.library.Library:
    """Attention of many sequences in one call, which the host's build has no code for."""
    library, made = torch.library.Library("aten", "IMPL"), Sequences(seen)
    library.impl("_flash_attention_forward", made.forward, "CUDA")
    library.impl("_flash_attention_backward", made.backward, "CUDA")
    return library


def _kernels() -> ModuleType:
    """`vold.model.lm_head.triton_kernels` in plain PyTorch: what they are called with is checked, and each counts as
    one operator."""

    def launched(name: str, logits: torch.Tensor, targets: torch.Tensor, *others: torch.Tensor) -> Any:
        for counts in _COUNTING:
            counts.operators[line()] += 1
            counts.names[f"triton.{name}"] += 1
        assert all(t.is_cuda and len(t) == len(logits) for t in (logits, targets, *others)), name
        assert all(t.dtype == torch.float32 and t.stride(-1) == 1 for t in (logits, *others)), name
        assert targets.dtype == torch.int64 and targets.is_contiguous(), name
        return _disable_current_modes()

    def read(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with launched("read", logits, targets):
            norm = logits.logsumexp(-1)
            whole = logits - norm[:, None]
            return whole.gather(-1, targets[:, None])[:, 0], -(whole.exp() * whole).sum(-1), logits.argmax(-1), norm

    def turn_into_gradient(
        logits: torch.Tensor, targets: torch.Tensor, normaliser: torch.Tensor, upstream: torch.Tensor
    ) -> torch.Tensor:
        with launched("turn_into_gradient", logits, targets, normaliser, upstream):
            logits.sub_(normaliser[:, None]).exp_().mul_(-upstream[:, None])
            return logits.scatter_add_(-1, targets[:, None], upstream[:, None])

    module = ModuleType("vold.model.lm_head.triton_kernels")
    vars(module).update(read=read, turn_into_gradient=turn_into_gradient)
    return module


class Event:
    """`torch.cuda.Event`: the card is never behind but where the host has not waited for a copy."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def record(self, stream: object = None) -> None: ...

    def wait(self, stream: object = None) -> None: ...

    def query(self) -> bool:
        return not _PENDING

    def synchronize(self) -> None:
        _waited("event")

    def elapsed_time(self, end: object) -> float:
        return 0.0


class Stream:
    """`torch.cuda.Stream`: work is done in the order in which it is asked for, whatever the stream."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def wait_stream(self, other: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def query(self) -> bool:
        return not _PENDING

    def synchronize(self) -> None:
        _waited("stream")


def _cuda(backend: ctypes.CDLL) -> dict[str, Any]:
    """The functions of `torch.cuda`."""
    stream = Stream()
    card = SimpleNamespace(name="pretended", major=9, minor=0, total_memory=MEMORY, multi_processor_count=132)
    for name in ("pretended_bytes_in_use", "pretended_bytes_peak"):
        getattr(backend, name).restype = ctypes.c_int64
    in_use, peak = backend.pretended_bytes_in_use, backend.pretended_bytes_peak
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: contextlib.nullcontext(),
        "get_device_properties": lambda device=None: card,
        "get_device_name": lambda device=None: card.name,
        "get_device_capability": lambda device=None: (card.major, card.minor),
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: _waited("synchronize"),
        "memory_allocated": lambda device=None: in_use(),
        "memory_reserved": lambda device=None: in_use(),
        "max_memory_allocated": lambda device=None: peak(),
        "max_memory_reserved": lambda device=None: peak(),
        "reset_peak_memory_stats": lambda device=None: backend.pretended_reset_peak(),
        "mem_get_info": lambda device=None: (MEMORY - in_use(), MEMORY),
        "empty_cache": lambda: None,
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": graphs.CUDAGraph,
        "graph": graphs.graph,
        "graph_pool_handle": lambda: (0, 0),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "is_current_stream_capturing": lambda: False,
        "default_generators": (torch.Generator(CARD),),
    }


_KEPT: list[object] = []


def install(backend: ctypes.CDLL) -> None:
    """Make `cuda` an ordinary device of this process, which ends with it."""
    for name, value in _cuda(backend).items():
        setattr(torch.cuda, name, value)
    torch._C._ensureCUDADeviceGuardSet()
    sys.modules["vold.model.lm_head.triton_kernels"] = _kernels()
    sys.modules["bitsandbytes"] = cast("Any", None)  # beside a card it wants functions of PyTorch's builds for CUDA

    def seen(kind: str) -> None:
        for counts in _COUNTING:
            counts.attention[kind] += 1

    def replayed() -> None:
        for counts in _COUNTING:
            counts.operators[line()] += 1
            counts.names["graph"] += 1

    graphs.ON_REPLAY.append(replayed)

    torch.nn.functional.scaled_dot_product_attention = attention(seen)
    watch: Any = Watch()  # type: ignore[no-untyped-call]
    watch.__enter__()
    _KEPT.extend([_products(), _sequences(seen), watch])
    torch.backends.cuda.is_flash_attention_available = lambda: True
