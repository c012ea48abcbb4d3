"""A state is written while training goes on: what it holds, when it counts, and what becomes of an error or a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from faults.frame import in_a_child
from killed import weights_of
from vold.errors import CheckpointError
from vold.model.parallel import Processes
from vold.model.place import Place
from vold.model.policy import Policy
from vold.run import folders
from vold.run.folders import MANIFEST, sweep, verify_directory
from vold.training import state_writer
from vold.training.checkpoint import restore_state
from vold.training.optim import MasterAdamW
from vold.training.sft import sft
from vold.training.state_writer import StateWriter


def trained(seed: int = 0) -> tuple[Policy, torch.optim.Optimizer]:
    """A student after one step of a gradient of ones."""
    policy = tiny.student(seed)
    policy.freeze(("vision", "projector"))
    optimizer = MasterAdamW([p for _, p in policy.trainable()], lr=1e-2, betas=(0.9, 0.98))
    step(policy, optimizer)
    return policy, optimizer


def step(policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    for _, p in policy.trainable():
        p.grad = torch.ones_like(p)
    optimizer.step()


def values(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """All that a state is to bring back."""
    named = policy.trainable()
    moments = {f"{n}/{k}": v for n, p in named for k, v in optimizer.state[p].items()}
    return {k: v.detach().clone() for k, v in ({**dict(named), **moments}).items()}


def writer_of(
    directory: Path, policy: Policy, optimizer: torch.optim.Optimizer, group: Processes | None = None
) -> StateWriter:
    return StateWriter(directory, policy, optimizer, Place(policy.model.device, optimizer), group or Processes())


@contextlib.contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writing threads stop before a file is hashed, until what is yielded is set."""
    go = threading.Event()

    def written(file: Path) -> str:
        go.wait(60)  # a test that never lets go is to fail, not to hang
        return folders.written(file)

    with monkeypatch.context() as m:
        m.setattr(state_writer, "written", written)
        try:
            yield go
        finally:
            go.set()


def test_a_state_is_that_of_its_step_whatever_is_trained_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, optimizer = trained()
    writer = writer_of(tmp_path, policy, optimizer)
    writer.begin(1)
    writer.settle(wait=True)
    step(policy, optimizer)
    before = values(policy, optimizer)
    with held_back(monkeypatch) as go:
        writer.begin(2)
        step(policy, optimizer)
        writer.settle(wait=False)  # nobody waits for it: the state before is the newest
        assert [p.name for p in tmp_path.glob("step-*")] == ["step-000001"]
        go.set()
        writer.settle(wait=True)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002"]
    other, fresh = trained(seed=1)
    assert restore_state(tmp_path, other, fresh) == 2
    found = values(other, fresh)
    assert found.keys() == before.keys()
    assert all(torch.equal(found[k], v) for k, v in before.items())
    assert not all(torch.equal(v, before[k]) for k, v in values(policy, optimizer).items())


def test_every_file_is_hashed_once_and_by_who_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, optimizer = trained()
    hashed: list[tuple[str, str]] = []
    real = folders.sha256_of

    def sha256(file: Path) -> str:
        hashed.append((file.name, threading.current_thread().name))
        return real(file)

    monkeypatch.setattr(folders, "sha256_of", sha256)
    writer = writer_of(tmp_path, policy, optimizer)
    writer.begin(1)
    writer.settle(wait=True)
    big = ("weights.safetensors", "optimizer.safetensors")
    assert sorted(name for name, _ in hashed) == sorted((*big, "state.json"))
    assert {thread for name, thread in hashed if name in big} == {"writer of a state"}
    manifest = json.loads((tmp_path / "step-000001" / MANIFEST).read_text())
    for name, digest in manifest.items():
        assert hashlib.sha256((tmp_path / "step-000001" / name).read_bytes()).hexdigest() == digest
    assert manifest.keys() == {*big, "state.json"}


class Obstacle(Processes):
    """One process, in whose new directory something happens before its part is written."""

    def __init__(self, temporary: Path, happens: Callable[[Path], object]) -> None:
        super().__init__()
        self.temporary, self.happens = temporary, happens

    def wait(self) -> None:
        self.happens(self.temporary)


def test_an_error_of_the_thread_is_raised_at_the_next_step_and_the_state_before_stays(tmp_path: Path) -> None:
    policy, optimizer = trained()
    first = writer_of(tmp_path, policy, optimizer)
    first.begin(1)
    first.settle(wait=True)
    group = Obstacle(tmp_path / ".step-000002.tmp", lambda d: (d / "optimizer.safetensors").mkdir())
    writer = writer_of(tmp_path, policy, optimizer, group)
    writer.begin(2)
    with pytest.raises(Exception, match=r"Is a directory|os error 21"):
        writer.settle(wait=True)
    writer.settle(wait=True)  # it is said once
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-000001"]
    sweep(tmp_path)
    assert restore_state(tmp_path, *trained(seed=1)) == 1
    again = writer_of(tmp_path, policy, optimizer)
    again.begin(2)
    again.settle(wait=True)
    verify_directory(tmp_path / "step-000002")


class TheOther(Processes):
    """The first of two, of which the other says of its part what it is told to."""

    def __init__(self, said: object) -> None:
        super().__init__(0, 2)
        self.said: list[object] = [said]

    def wait(self) -> None:
        pass

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        return [value, *self.said]


def test_a_state_counts_when_every_process_has_written_its_part(tmp_path: Path) -> None:
    policy, optimizer = trained()
    group = TheOther(None)
    writer = writer_of(tmp_path, policy, optimizer, group)
    writer.begin(1)
    writer.settle(wait=True)  # the other is still at work
    assert list(tmp_path.glob("step-*")) == []
    group.said = [({}, "")]
    writer.settle(wait=False)
    (state,) = tmp_path.glob("step-*")
    verify_directory(state)
    assert restore_state(tmp_path, *trained(seed=1)) == 1
    group.said = [({}, "no room")]
    writer.begin(2)
    with pytest.raises(CheckpointError, match="process 1: no room"):
        writer.settle(wait=True)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-000001"]


def test_killed_in_a_later_step_while_a_state_is_written_it_goes_on_from_the_one_before(tmp_path: Path) -> None:
    whole, broken = tiny.recipe(tmp_path / "whole"), tiny.recipe(tmp_path / "broken")
    for home, recipe in (("whole", whole), ("broken", broken)):
        tiny.write_traces(tmp_path / home, recipe)
    sft(whole)
    log = tmp_path / "broken" / "run" / "sft" / "metrics.jsonl"

    def killed() -> int:
        """The state after step 4 is never hashed; the kill comes when the sixth step has been logged."""
        never = threading.Event()

        def written(file: Path) -> str:
            if "000004" in str(file):
                never.wait()
            return folders.written(file)

        settle = StateWriter.settle

        def settled(self: StateWriter, *, wait: bool) -> None:
            if len(log.read_text().splitlines()) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            settle(self, wait=wait)

        vars(state_writer)["written"] = written
        StateWriter.settle = settled  # type: ignore[method-assign]
        sft(broken)
        return 0

    ended = in_a_child(killed, seconds=600)
    assert ended.code == -signal.SIGKILL, ended.said
    left = sorted(p.name for p in log.parent.iterdir() if "step" in p.name)
    assert left == [".step-000004.tmp", "step-000002"]
    sft(broken)
    assert weights_of(log.parent) == weights_of(tmp_path / "whole" / "run" / "sft")
    assert not list(log.parent.glob(".step*"))


def test_room_in_the_hosts_memory_is_made_once(tmp_path: Path) -> None:
    policy, optimizer = trained()
    writer = writer_of(tmp_path, policy, optimizer)
    used = []
    for number in (1, 2):
        writer.begin(number)
        used.append({name: t.data_ptr() for name, t in writer.place._lent.items()})
        writer.settle(wait=True)
    assert used[0] == used[1]
    named = load_file(tmp_path / "step-000002" / "weights.safetensors")
    assert len(used[0]) == len(named) + len(load_file(tmp_path / "step-000002" / "optimizer.safetensors"))
