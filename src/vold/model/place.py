"""Who is on the device, phase by phase, and what waits in the host's memory meanwhile.

Numbers are copied, never recomputed, so training is bit for bit that of a run that keeps all of it on the device. The
copies in the host's memory are made once and kept, pinned where the device is a GPU. What has not changed since it came
to the device leaves by being dropped: a frozen teacher is copied to the host once in a run, and never again.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Phase = Literal["sample", "teacher", "update", "save"]
"""The student generates; the teacher scores; the student learns; a state or a model is written."""
BLOCK = 2**30
"""Bytes of host memory asked for at a time. PyTorch rounds pinned memory up to a power of two, so tensors share it."""
ALIGNED = 64


class Peak(NamedTuple):
    """The most bytes of a GPU that tensors took in a phase, and that PyTorch kept for them."""

    allocated: int
    reserved: int


class Place:
    """The memory of a device that student, optimizer and teachers share.

    Between two phases PyTorch's unused memory goes back to the card. With `take_turns`, optimizer state is on the
    device for the update alone, and teachers for their own phase; the student's weights stay.

    Args:
        device: where all of them work.
        optimizer: the student's.

    Attributes:
        peaks: of each phase so far, on a GPU.
    """

    def __init__(self, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        self.device, self.peaks = device, dict[Phase, Peak]()
        self._lane = Lane(device)
        self._unread = threading.Event()
        self._unread.set()
        self._lent: dict[str, torch.Tensor] = {}
        held = weakref.ref(optimizer)  # has this in its hook: a cycle would keep a stage's memory until it is collected
        self._moments = Shelf(
            device, self._lane, lambda: () if (o := held()) is None else _tensors(o.state.values()), self._unread.wait
        )
        self._teachers = Shelf(device, self._lane, lambda: ())
        self._turns = self._late = False
        self._phase: Phase | None = None
        optimizer.register_step_pre_hook(lambda *_: self._moments.changes())

    def take_turns(self) -> None:
        """From now on, what a phase does not need waits in the host's memory; to begin with, the optimizer's state."""
        self._turns = True
        self.enter("sample")

    def invite(self, teachers: Sequence[torch.nn.Module], student: torch.nn.Module, *, late: bool) -> None:
        """Let models take part that score rollouts.

        Args:
            teachers: the models. Their weights travel; what else they hold is little.
            student: what they share with it stays with it.
            late: whether they are asked again in the update.
        """
        ours = {id(p) for p in student.parameters()}
        theirs = [t for m in teachers for t in m.parameters() if id(t) not in ours]
        self._teachers, self._late = Shelf(self.device, self._lane, lambda: theirs), late
        self._phase = None

    def enter(self, phase: Phase) -> None:
        """Bring what a phase needs to the device, after what it does not need has left."""
        if phase == self._phase:
            return
        self._note_peak()
        self._phase = phase
        if self._turns:
            wanted = {
                self._moments: phase == "update",
                self._teachers: phase == "teacher" or (phase == "update" and self._late),
            }
            for shelf in (s for s, here in wanted.items() if not here):
                shelf.leave()  # first: there may be no room for both
            self._begin()
            for shelf in (s for s, here in wanted.items() if here):
                shelf.come()
            if wanted[self._teachers]:
                self._lane.arrived()
        else:
            self._begin()

    def leave(self) -> None:
        """The present phase is over: what has changed in it sets out for the host while others work."""
        self._note_peak()
        if self._turns and self._phase == "update":
            self._moments.set_out()

    def lend(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What tensors of the student and its optimizer hold now, in the host's memory, for another thread to read
        within `reading` while the device goes on. One loan at a time.

        Their room is made once and kept. What waits in the host's memory already is lent as it lies there, and is not
        overwritten before it has been read.

        Args:
            tensors: by names that are the same in every loan.
        """
        kept = {name for name, t in tensors.items() if self._moments.holds(t)}
        rest = {name: t.detach() for name, t in tensors.items() if name not in kept}
        new = {name: t for name, t in rest.items() if name not in self._lent}
        rooms = host_memory([*new.values()], pinned=self.device.type == "cuda")
        self._lent |= dict(zip(new, rooms, strict=True))
        self._unread.clear()
        with self._lane.copying():
            for name, tensor in rest.items():
                self._lent[name].copy_(tensor, non_blocking=True)
        return {name: t.data if name in kept else self._lent[name] for name, t in tensors.items()}

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """The loan is there inside, and has ended afterwards."""
        try:
            self._lane.wait()
            yield
        finally:
            self._unread.set()

    def _note_peak(self) -> None:
        if self.device.type == "cuda" and self._phase is not None:
            now = Peak(torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device))
            self.peaks[self._phase] = Peak(*map(max, now, self.peaks.get(self._phase, now)))

    def _begin(self) -> None:
        """A phase begins, with what was there before it gone: from here on its own peak counts."""
        give_back()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


class Lane:
    """A stream for copies between device and host, which go on while the device computes. On a CPU there is none, and
    copies are made at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Copies made inside follow what the device has been given to do so far, and nothing waits for them."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            yield

    def arrived(self) -> None:
        """What the device is given to do from now on follows the copies."""
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def wait(self) -> None:
        """Go on when all copies are made."""
        if self._stream is not None:
            self._stream.synchronize()


class Shelf:
    """Tensors that are on a device in some phases and in the host's memory in others.

    Args:
        device: where they work.
        lane: what they travel on.
        tensors: gives those there are by now. Single numbers stay where they are.
        unread: comes back when nobody reads the copies in the host's memory.
    """

    def __init__(
        self,
        device: torch.device,
        lane: Lane,
        tensors: Callable[[], Iterable[torch.Tensor]],
        unread: Callable[[], object] = lambda: None,
    ) -> None:
        self.device, self._lane, self._list, self._unread = device, lane, tensors, unread
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._here, self._same = True, False

    def changes(self) -> None:
        """The device is about to change them: they must be there, and their copies are old from now on."""
        self._lane.arrived()
        self._same = False

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is one of them, and in the host's memory now."""
        return not self._here and id(tensor) in self._copies

    def set_out(self) -> None:
        """Begin to copy them to the host, unless it has them as they are."""
        if not self._here or self._same:
            return
        tensors = [t for t in self._list() if t.numel() > 1]
        new = [t for t in tensors if id(t) not in self._copies]
        rooms = host_memory(new, pinned=self.device.type == "cuda")
        self._copies |= {id(t): (t, room) for t, room in zip(new, rooms, strict=True)}
        self._unread()
        with self._lane.copying():
            for tensor, copy in self._copies.values():
                copy.copy_(tensor.detach(), non_blocking=True)
        self._same = True

    def leave(self) -> None:
        """Give their memory on the device back."""
        if self._here:
            self.set_out()
            self._lane.wait()
            for tensor, copy in self._copies.values():
                tensor.data = copy
            self._here = False

    def come(self) -> None:
        """Begin to copy them to the device."""
        if not self._here:
            for tensor, copy in self._copies.values():
                tensor.data = torch.empty_like(copy, device=self.device)
            with self._lane.copying():
                for tensor, copy in self._copies.values():
                    tensor.data.copy_(copy, non_blocking=True)
            self._here = True


def host_memory(like: Sequence[torch.Tensor], *, pinned: bool) -> list[torch.Tensor]:
    """Room in the host's memory for each of some tensors; several share one block of it."""
    sizes = [-(-t.nbytes // ALIGNED) * ALIGNED for t in like]
    left, out = sum(sizes), list[torch.Tensor]()
    block, used = torch.empty(0, dtype=torch.uint8), 0
    for tensor, size in zip(like, sizes, strict=True):
        if used + size > len(block):
            block, used = torch.empty(max(size, min(BLOCK, left)), dtype=torch.uint8, pin_memory=pinned), 0
        out.append(block[used : used + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        used, left = used + size, left - size
    return out


def give_back(*, dead: bool = False) -> None:
    """Return memory that PyTorch keeps for later tensors to its GPUs, for whoever else works there.

    Args:
        dead: also what only cycles of dead objects hold, such as models of stages that have ended. That collection
            takes tenths of a second.
    """
    if torch.cuda.is_initialized():
        if dead:
            gc.collect()
        torch.cuda.empty_cache()


def one_copy(model: torch.nn.Module, of: torch.nn.Module) -> None:
    """Let a model that is never changed use the frozen weights of another where they are the same numbers under the
    same name."""
    named = of.named_parameters(remove_duplicate=False)
    frozen = {n.replace(".base_layer.", "."): p for n, p in named if not p.requires_grad}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if (twin := frozen.get(name)) is not None and _same(twin, parameter):
            module, _, last = name.rpartition(".")
            setattr(model.get_submodule(module), last, twin)


def _tensors(states: Iterable[dict[str, Any]]) -> Iterator[torch.Tensor]:
    found = itertools.chain.from_iterable(state.values() for state in states)
    return (value for value in found if isinstance(value, torch.Tensor))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """What processes have divided is nobody else's; quantised weights are no numbers alone."""
    alike = (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    apart = any(isinstance(t, DTensor) for t in (a, b)) or not a.is_floating_point()
    return alike and not apart and torch.equal(a, b)
