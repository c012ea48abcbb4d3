"""States are written while training goes on: each process's part by a thread of its own, which hashes it as well.

`torch.distributed.checkpoint.async_save` does not serve here. It writes what has no hash, so every byte would be read
again for the manifest; it plans with collectives of its thread, between those of the update; its copies in the host's
memory are its own, where `vold.model.place.Place` may have some already; and its usual format is pickled. What its
reader expects of several processes' safetensors is a line of each file's header, written here.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from vold.errors import CheckpointError
from vold.model.lookout import joined
from vold.model.parallel import ALONE, Processes
from vold.run.files import temporary_of
from vold.run.folders import begin_directory, drop_older, end_directory, state_of, written
from vold.run.lock import confirm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vold.model.place import Place
    from vold.model.policy import Policy

SHARDS = "shards"
"""Folder of a state that several processes have written."""
DIVIDED = "DCP_SHARDING_INFO"
"""Where `HuggingFaceStorageReader` looks for the places of a file's tensors in the whole ones."""


@dataclass
class Part:
    """What a process writes of a state, and what came of it.

    Attributes:
        path: the state's.
        step: it is after so many optimizer steps.
        hashes: of this process's files, when they are whole.
        error: what kept it from writing.
        thread: at work on it.
    """

    path: Path
    step: int
    hashes: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None
    thread: threading.Thread = field(default_factory=threading.Thread)

    def said(self, *, wait: bool) -> tuple[dict[str, str], str] | None:
        """The hashes, and the error in words; None where the thread is at work, and is not to be waited for."""
        if wait:
            joined(self.thread)
        return (
            None
            if self.thread.is_alive()
            else (self.hashes, "" if self.error is None else str(self.error) or type(self.error).__name__)
        )

    def refuse(self, errors: Sequence[str]) -> None:
        """Raise what kept this process or another from writing.

        Args:
            errors: of each process, in words; empty where there is none.
        """
        if self.error is not None:
            raise self.error
        if failed := [f"process {rank}: {error}" for rank, error in enumerate(errors) if error]:
            fix = "mend what it says, and repeat the command: it goes on from the state before"
            what = "another process could not write its part of a state"
            raise CheckpointError(what, where=str(self.path), got=failed[0], fix=fix)


class StateWriter:
    """Writes the states of a stage; all processes must call each of its methods but `leave`.

    Args:
        directory: the stage's.
        policy: the student.
        optimizer: over its trainable parameters.
        place: the memory that both are in.
        group: the processes that train.
    """

    def __init__(
        self,
        directory: Path,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        place: Place,
        group: Processes = ALONE,
    ) -> None:
        self.directory, self.policy, self.optimizer, self.place, self.group = directory, policy, optimizer, place, group
        self._part: Part | None = None

    def begin(self, step: int, beside: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Take the state after `step` optimizer steps, and begin to write it when the one before is in place.

        Args:
            step: see above.
            beside: further files of the state, of which the first process writes its own.

        Raises:
            CheckpointError, OSError: the one before could not be written.
        """
        self.settle(wait=True)
        part = Part(state_of(self.directory, step), step)
        if self.group.first:
            begin_directory(part.path)
        self.group.wait()
        mine, places = self._mine()
        lent = self.place.lend(mine)
        if self.group.first:
            for name, content in beside.items():
                (temporary_of(part.path) / name).write_bytes(content)
        part.thread = threading.Thread(target=self._write, args=(part, lent, places), name="writer of a state")
        self._part = part
        part.thread.start()

    def settle(self, *, wait: bool) -> None:
        """Put the state that is being written in place, and drop older ones, when each process has written its part.

        Args:
            wait: for that; else a state that is not written yet is left to be.

        Raises:
            CheckpointError, OSError: it could not be written.
        """
        part = self._part
        if part is None:
            return
        said = self.group.gather(part.said(wait=wait))
        whole = [one for one in said if one is not None]
        if len(whole) < len(said):
            return
        self._part = None
        part.refuse([error for _, error in whole])
        if self.group.first:
            end_directory(part.path, {name: found for hashes, _ in whole for name, found in hashes.items()})
            drop_older(self.directory, part.path)

    def leave(self) -> None:
        """Wait until this process writes no more. A state that is not in place then is none."""
        if self._part is not None:
            self._part.thread.join()
        self._part = None

    def _mine(self) -> tuple[dict[str, torch.Tensor], dict[str, tuple[int, ...]]]:
        """What this process writes: tensors by `weights/NAME` and `optimizer/NAME/KIND`, and where each of them begins
        in the whole one. What several processes hold alike is the first one's to write."""
        named = self.policy.trainable()
        state = {f"weights/{name}": p.detach() for name, p in named} | {
            f"optimizer/{name}/{kind}": torch.as_tensor(value)
            for name, p in named
            for kind, value in self.optimizer.state[p].items()
        }
        mine: dict[str, torch.Tensor] = {}
        places: dict[str, tuple[int, ...]] = {}
        for key, value in state.items():
            if not isinstance(value, DTensor):
                if self.group.first:
                    mine[key], places[key] = value, (0,) * value.ndim
                continue
            mesh = value.device_mesh
            alike = (mesh.get_local_rank(i) for i, p in enumerate(value.placements) if p.is_replicate())
            local = value.to_local()
            if local.numel() and not any(alike):
                _, begin = compute_local_shape_and_global_offset(value.shape, mesh, value.placements)
                mine[key], places[key] = local, tuple(begin)
        return mine, places

    def _write(self, part: Part, lent: Mapping[str, torch.Tensor], places: Mapping[str, tuple[int, ...]]) -> None:
        """The thread's part: the files of this process, each flushed and hashed."""
        folder = temporary_of(part.path)
        try:
            with self.place.reading():
                if self.group.world == 1:
                    for kind in ("weights", "optimizer"):
                        found = {k.partition("/")[2]: t for k, t in lent.items() if k.startswith(f"{kind}/")}
                        self._file(part, folder, f"{kind}.safetensors", found)
                elif lent:
                    (folder / SHARDS).mkdir(exist_ok=True)
                    divided = {DIVIDED: json.dumps({k: {"saved_offsets": places[k]} for k in lent})}
                    name = f"{SHARDS}/shard-{self.group.rank:05d}.safetensors"
                    self._file(part, folder, name, lent, divided)
            if self.group.first:
                (folder / "state.json").write_text(json.dumps({"step": part.step}))
        except BaseException as error:
            part.error = error

    def _file(
        self,
        part: Part,
        folder: Path,
        name: str,
        tensors: Mapping[str, torch.Tensor],
        header: dict[str, str] | None = None,
    ) -> None:
        confirm(folder)
        save_file(dict(tensors), folder / name, header)
        part.hashes[name] = written(folder / name)
