"""Training state on disk: what a killed run needs to go on as if it had not been killed.

Data order and rollouts are functions of (seed, step), so a state is the trainable weights, the optimizer's moments
and the step number. Tensors are safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vold.errors import CheckpointError, VoldError
from vold.rundir import drop_older, latest_checkpoint, new_directory, verify_directory

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from vold.policy import Policy


def save_state(directory: Path, step: int, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after `step` optimizer steps, then drop older ones."""
    named = policy.trainable()
    moments = {
        f"{name}/{key}": torch.as_tensor(value) for name, p in named for key, value in optimizer.state[p].items()
    }
    path = directory / f"step-{step:06d}"
    with new_directory(path) as d:
        save_file({name: p.detach().contiguous() for name, p in named}, d / "weights.safetensors")
        save_file(moments, d / "optimizer.safetensors")
        (d / "state.json").write_text(json.dumps({"step": step}))
    drop_older(directory, path)


class StateKeeper:
    """Saves the state when a run stops on an error of ours, such as a server that stays away.

    Set `step` to the number of optimizer steps whose weights the policy holds, before each new one.
    """

    def __init__(self, directory: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        self.directory, self.policy, self.optimizer, self.step = directory, policy, optimizer, 0

    def __enter__(self) -> StateKeeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        path = self.directory / f"step-{self.step:06d}"
        if isinstance(value, VoldError) and self.step and not path.exists():
            save_state(self.directory, self.step, self.policy, self.optimizer)


def restore_state(directory: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest state into policy and optimizer; returns its step, 0 if there is none.

    Raises:
        CheckpointError: the newest state is corrupt or belongs to another model.
    """
    path = latest_checkpoint(directory)
    if path is None:
        return 0
    verify_directory(path)
    try:
        weights = load_file(path / "weights.safetensors")
        moments = load_file(path / "optimizer.safetensors")
        step = int(json.loads((path / "state.json").read_text())["step"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            "this checkpoint cannot be read",
            where=str(path),
            got=str(error),
            fix=f"delete {path} and start the stage again",
        ) from error
    named = policy.trainable()
    expected = {name: tuple(p.shape) for name, p in named}
    found = {name: tuple(t.shape) for name, t in weights.items()}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))
        raise CheckpointError("this checkpoint belongs to another model", where=str(path), got=str(odd[:2]))
    with torch.no_grad():
        for name, p in named:
            p.copy_(weights[name])
    for name, p in named:
        mine = {k.rsplit("/", 1)[1]: v for k, v in moments.items() if k.rsplit("/", 1)[0] == name}
        optimizer.state[p] = {k: v.to(p.device) if k != "step" else v for k, v in mine.items()}
    return step
