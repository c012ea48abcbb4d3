"""One training run on several processes: FSDP2 for the student, and every process its own share of a step's work.

All processes hold the same list of rollouts and cut it into the same micro-batches; each runs its share of them, and
the sums over processes are those of one process. `torchrun` starts them; without it there is one process, and nothing
here does anything.

The student's weights, gradients and optimizer moments are divided over the processes of a node, and each node has a
copy (`vold.model.sharding`). While it generates, its weights are whole on each process (`Processes.gathered`), so that
rollouts of different lengths need no word between processes.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous

from vold.errors import ConfigError
from vold.model.families import Part, parameters_of
from vold.model.lookout import Lookout
from vold.model.sharding import divide, frozen_parts, mesh_of, whole_state
from vold.run.files import temporary_of
from vold.run.folders import new_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch.distributed.device_mesh import DeviceMesh

    from vold.model.policy import Policy
    from vold.run.recipe import Exchange, Within

T = TypeVar("T")
MINUTES = 20.0
"""How long a process waits for another that gives no sign of life, unless a recipe says something else."""
PARTS: tuple[Part, ...] = ("vision", "projector")


class Round(NamedTuple):
    """A micro-batch that a process runs.

    Attributes:
        number: which one of the step's.
        counts: whether its gradient counts; false where it only keeps step with other processes.
        last: whether it is this process's last one of the step.
    """

    number: int
    counts: bool
    last: bool


class Processes:
    """The processes of a run and this one's place among them.

    Attributes:
        rank: 0-based number of this process.
        world: how many there are.
        node: how many there are on this machine; those of one machine follow each other.
    """

    def __init__(self, rank: int = 0, world: int = 1, node: int | None = None, lookout: Lookout | None = None) -> None:
        self.rank, self.world, self.node, self._lookout = rank, world, node or world, lookout
        self._channel = ""
        self.exchange: Exchange = "micro_batch"
        """Set by `shard`, as is `tower`."""
        self.tower: list[FSDPModule] = []
        """Frozen parts of the student that only pictures need."""
        self.teachers_divided: Within | None = None
        """Over which processes teachers are divided, too; set by `vold.engines.teachers.divided`."""

    @property
    def first(self) -> bool:
        """Whether this process writes what there is one of: logs, checkpoints' small files, the final model."""
        return self.rank == 0

    def beside(self) -> Processes:
        """The same processes for words of another thread, which do not meet this one's. All must ask, in one order."""
        out = copy.copy(self)
        out._channel = "beside"
        out.wait()  # which opens it on all of them
        return out

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process runs the block before all others do."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def enter(self, phase: str, step: int | None = None) -> None:
        """Let the others know where this process is."""
        if self._lookout is not None:
            self._lookout.enter(f"`{phase}`" if step is None else f"`{phase}` of step {step}")

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Where one of several processes does not come, the others end in here, saying which and where it was.

        Raises:
            VoldError: the same; see `vold.model.lookout`.
        """
        with contextlib.nullcontext() if self._lookout is None else self._lookout.guarding():
            yield

    def wait(self) -> None:
        """Go on when every process is here, however long those that give signs of life take."""
        if self._lookout is not None:
            self._lookout.meet(self._channel)
            dist.barrier(group=_words(self._channel, self._lookout.limit))

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank."""
        if self._lookout is None:
            return [value]
        self._lookout.meet(self._channel)
        out: list[Any] = [None] * self.world
        dist.all_gather_object(out, value, group=_words(self._channel, self._lookout.limit))
        return cast("list[T]", out)

    def most(self, count: int, within: Within) -> int:
        """The largest count that a process of this node has, or of all; all must ask."""
        counts, first = self.gather(count), self.rank - self.rank % self.node
        return max(counts[first : first + self.node] if within == "node" else counts)

    def share(self, count: int) -> range:
        """This process's part of `count` things: consecutive, and as many as any other has, give or take one.

        Example:
            >>> Processes(1, 2).share(5)
            range(2, 5)
        """
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def rounds(self, costs: Sequence[int]) -> list[Round]:
        """This process's micro-batches.

        The costliest is given out first, always to the process with the least to do. Where weights are exchanged in
        every micro-batch all processes run equally many, and elsewhere each runs at least one: a process that has
        fewer repeats the cheapest, which does not count.

        Args:
            costs: tokens of every micro-batch; the same on all processes.

        Example:
            >>> [[r.number for r in Processes(rank, 2).rounds([9, 4, 3])] for rank in (0, 1)]
            [[0, 2], [1, 2]]
        """
        mine = self._turns(costs)[self.rank]
        return [Round(number, counts, place == len(mine)) for place, (number, counts) in enumerate(mine, 1)]

    def gathers(self, costs: Sequence[int], pictures: Sequence[bool]) -> list[bool]:
        """Before which of its micro-batches (`rounds`) this process gathers the frozen tower, as all do before those.

        Where weights are exchanged in every micro-batch it is needed when any process's has pictures; elsewhere before
        the first, if any of the step has.

        Args:
            costs: as for `rounds`.
            pictures: whether each of these micro-batches has any; the same on all processes.
        """
        turns = self._turns(costs)
        if self.exchange == "step":
            return [any(pictures) and place == 0 for place in range(len(turns[self.rank]))]
        return [any(pictures[number] for number, _ in turn) for turn in zip(*turns, strict=True)]

    def _turns(self, costs: Sequence[int]) -> list[list[tuple[int, bool]]]:
        """For every process the micro-batches that it runs, and whether each counts."""
        loads = [0] * self.world
        given: list[list[int]] = [[] for _ in range(self.world)]
        order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
        for i in order:
            least = loads.index(min(loads))
            loads[least] += costs[i]
            given[least].append(i)
        fewest = max(map(len, given)) if self.exchange == "micro_batch" else min(1, len(costs))
        return [
            [(i, True) for i in sorted(mine)] + [(i, False) for i in order[-1:]] * (fewest - len(mine))
            for mine in given
        ]

    def shard(self, policy: Policy, exchange: Exchange = "micro_batch", within: Within = "node") -> None:
        """Divide a student over the processes, see `vold.model.sharding.divide`.

        Args:
            policy: the student.
            exchange: when weights are gathered and gradients added up in training.
            within: over which processes: those of a machine, so that each machine has a copy, or all.

        Raises:
            ConfigError: machines are to have copies, and run different numbers of processes.
        """
        if self.world == 1:
            return
        if within == "node" and len(sizes := sorted(set(self.gather(self.node)))) > 1:
            raise ConfigError(
                "nodes do not have equally many processes, so they cannot each hold the same parts of a student",
                where="run.shard",
                got=f"{sizes[0]} on one, {sizes[-1]} on another",
                fix="start equally many on each node, or set run.shard=world",
            )
        dtype, tower = policy.model.dtype, list(frozen_parts(policy))
        divide(policy, self.mesh(policy.model.device.type, within), tower)
        self.tower = cast("list[FSDPModule]", tower)
        policy.whole_state = functools.partial(whole_state, policy, dtype)
        self.exchange = exchange
        self._reshard_after_forward(policy)

    def mesh(self, device: str, within: Within) -> DeviceMesh:
        """A mesh of all processes, see `vold.model.sharding.mesh_of`; all must ask."""
        self.wait()  # however long another still reads its models
        assert self._lookout is not None
        return mesh_of(device, self.world, self.node if within == "node" else self.world, self._lookout.limit)

    def _reshard_after_forward(self, policy: Policy) -> None:
        """As training wants it: layers drop their weights where every micro-batch gathers them, the rest never."""
        for part in _parts(policy):
            drop = self.exchange == "micro_batch" and part not in (policy.model, *self.tower)
            part.set_reshard_after_forward(drop, recurse=False)

    @contextlib.contextmanager
    def gathered(self, policy: Policy, *, pictures: bool = True) -> Iterator[None]:
        """Inside, every process has all weights and runs the model on its own; without `pictures`, on text alone."""
        parts = [part for part in _parts(policy) if pictures or part not in self.tower]
        for part in parts:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            if parts:  # passes in here differ between processes, and FSDP2 would gather by the order of the last ones
                policy.model.reset_iter_state()
            self._reshard_after_forward(policy)

    def gather_tower(self) -> None:
        """Gather the frozen parts that pictures need, on all processes at once; the backward pass drops them."""
        for part in self.tower:
            part.unshard()

    def backward(self, policy: Policy, loss: torch.Tensor, of: Round) -> None:
        """Back-propagate, so that gradients add up over processes and micro-batches.

        FSDP2 averages over processes, so the loss is multiplied by their number. It also expects a gradient for the
        same weights everywhere: a vision tower in training gets zeros where a micro-batch has no picture.

        Args:
            policy: whose weights they are.
            loss: of one micro-batch.
            of: that micro-batch.
        """
        if self.world > 1:
            loss = loss * (self.world if of.counts else 0.0)
            for part in PARTS if policy.is_vlm else ():
                for _, p in parameters_of(policy.model.base_model, policy.family, part):
                    if p.requires_grad:
                        loss = loss + 0.0 * p.flatten()[0]
            if self.exchange == "step":
                policy.model.set_requires_gradient_sync(of.last)
                policy.model.set_reshard_after_backward(of.last)
            else:  # between nodes that have copies gradients are added up once a step
                policy.model.set_requires_all_reduce(of.last)
        loss.backward()

    @contextlib.contextmanager
    def new_directory(self, path: Path) -> Iterator[Path]:
        """`vold.run.folders.new_directory` that all processes write into; what they yield is the same directory."""
        if self.first:
            with new_directory(path) as temporary:
                self.wait()
                yield temporary
                self.wait()
        else:
            self.wait()
            yield temporary_of(path)
            self.wait()
        self.wait()


ALONE = Processes()
"""One process."""


def processes(minutes: float = MINUTES) -> Processes:
    """Join the others that `torchrun` has started; one process where it has not.

    Args:
        minutes: that they wait for one which gives no sign of life, and for each other within an operation on tensors.
            Those of the first call count.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine.
    """
    global _joined
    if _joined is None:
        _joined = _join(60 * minutes)
    return _joined


_joined: Processes | None = None


def _join(seconds: float) -> Processes:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    if torch.cuda.is_available():
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if place >= torch.cuda.device_count():
            raise ConfigError(
                "there are more processes than GPUs",
                where="torchrun --nproc-per-node",
                got=f"process {place + 1} of a machine with {torch.cuda.device_count()}",
                fix="start one process a GPU",
            )
        torch.cuda.set_device(place)
    patience = datetime.timedelta(seconds=seconds)
    store, rank, _ = next(rendezvous("env://", timeout=patience))
    backend, limit = "gloo", patience
    if torch.cuda.is_available():  # where NCCL gives up it ends the process: `Lookout` is to speak before
        backend, limit = "cpu:gloo,cuda:nccl", patience + datetime.timedelta(minutes=1)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    node = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    return Processes(rank, world, node, Lookout(PrefixStore("vold", store), rank, world, limit, seconds))


@functools.cache
def _words(channel: str, limit: datetime.timedelta) -> Any:
    """Processes talk about Python objects through the CPU, whatever carries their tensors."""
    return dist.new_group(backend="gloo", timeout=limit)


def _parts(policy: Policy) -> list[FSDPModule]:
    return [m for m in policy.model.modules() if isinstance(m, FSDPModule)]
