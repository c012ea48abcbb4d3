"""Training state on disk: what a killed run needs to go on as if it had not been killed.

Data order and rollouts are functions of (seed, step), so a state is the trainable weights, the optimizer's moments
and the step number. Tensors are safetensors; nothing is unpickled. Several processes each write their own part
(`vold.training.state_writer`); any number of processes, or one, goes on from either kind.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor

from vold.errors import CheckpointError
from vold.model.moments import SCALES, scales_of, takes
from vold.run.files import read_json
from vold.run.folders import latest_checkpoint, step_of, verify_directory
from vold.training.optim import MasterAdamW
from vold.training.state_writer import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vold.model.policy import Policy

    Tensors = dict[str, torch.Tensor]


def restore_state(directory: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest state into policy and optimizer; returns its step, 0 if there is none.

    Raises:
        CheckpointError: the newest state is corrupt or belongs to another model.
    """
    path = latest_checkpoint(directory)
    if path is None:
        return 0
    verify_directory(path)
    named = policy.trainable()
    step, weights, moments = _read(path, dict(named))
    eight_bit = isinstance(optimizer, MasterAdamW) and optimizer.eight_bit
    if odd := _not_of(named, weights, moments, eight_bit=eight_bit):
        fix = f"train the model that it is of, or delete {path}: the stage then begins with its first step"
        raise CheckpointError("this checkpoint belongs to another model", where=str(path), got=str(odd[:2]), fix=fix)
    for name, p in named:
        mine = {k.rsplit("/", 1)[1]: v for k, v in moments.items() if k.rsplit("/", 1)[0] == name}
        # Weights in float32: kept apart where one process runs rounded ones, and in place where several do.
        exact = mine.pop("master", weights[name])
        with torch.no_grad():
            p.copy_(_placed(exact, p))
        optimizer.state[p] = {k: _placed(v, p) if k != "step" else v.to(p.device) for k, v in mine.items()}
        if p.dtype != torch.float32:
            optimizer.state[p]["master"] = exact.float().to(p.device)
    return step


def _not_of(
    named: Sequence[tuple[str, torch.nn.Parameter]], weights: Tensors, moments: Tensors, *, eight_bit: bool
) -> list[object]:
    """What of a state does not fit these parameters, whose moments have 8 bits or not: names with shapes, or names of
    moments."""
    expected = {name: tuple(p.shape) for name, p in named}
    odd: list[object] = [*sorted({*expected.items()} ^ {(name, tuple(t.shape)) for name, t in weights.items()})]
    kinds: dict[str, set[str]] = {}
    for key, value in moments.items():
        name, _, kind = key.rpartition("/")
        kinds.setdefault(name, set()).add(kind)
        if kind != "step" and tuple(value.shape) != _shape(kind, expected.get(name)):
            odd.append((key, tuple(value.shape)))
    scaled = {name for name, p in named if eight_bit and takes(p.numel())}
    return [*odd, *_unusual(kinds, scaled)]


def _unusual(kinds: dict[str, set[str]], scaled: set[str]) -> Iterator[str]:
    """Parameters whose state has other parts than most have; moments in 8 bits, of those that are `scaled`, have scales
    besides."""
    usual = max((found - {*SCALES} for found in kinds.values()), key=len, default=set())
    for name, found in kinds.items():
        if found != usual | {*(SCALES if name in scaled else ())}:
            yield f"{name}: {', '.join(sorted(found))}"


def _shape(kind: str, whole: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """That of a part of the optimizer's state of a parameter, where there is such a parameter."""
    return whole if whole is None or kind not in SCALES else (scales_of(math.prod(whole)),)


def _read(path: Path, parameters: dict[str, torch.nn.Parameter]) -> tuple[int, Tensors, Tensors]:
    """Step, weights and moments of a state.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        step = step_of(path)
        if read_json(path / "state.json", dict) != {"step": step}:
            raise ValueError("state.json is of another step than the folder's name")
        if (path / SHARDS).is_dir():
            return step, *_read_shards(path / SHARDS, parameters)
        return step, load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors")
    except (OSError, SafetensorError, ValueError, KeyError, CheckpointException) as error:
        raise CheckpointError(
            "this checkpoint cannot be read",
            where=str(path),
            got=(str(error).strip() or type(error).__name__).splitlines()[-1],
            fix=f"delete {path}: the stage then begins with its first step",
        ) from error


def _placed(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor on the device of another, and divided over processes as that one is."""
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)


def _read_shards(folder: Path, parameters: dict[str, torch.nn.Parameter]) -> tuple[Tensors, Tensors]:
    """Weights and moments as several processes have written them, divided as the parameters are."""
    reader = HuggingFaceStorageReader(str(folder))
    state: dict[str, Any] = {}
    for key, kept in reader.read_metadata().state_dict_metadata.items():
        kind, _, name = key.partition("/")
        like = parameters.get(name if kind == "weights" else name.rpartition("/")[0])
        assert isinstance(kept, TensorStorageMetadata)
        if like is not None and like.shape == kept.size:
            state[key] = torch.zeros_like(like.detach(), dtype=torch.float32)
        else:
            state[key] = torch.zeros(kept.size)
    with warnings.catch_warnings():  # one process needs no others to read
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(state, storage_reader=reader)
    parts: tuple[Tensors, Tensors] = ({}, {})
    for key, value in state.items():
        kind, _, name = key.partition("/")
        parts[kind != "weights"][name] = value
    return parts
