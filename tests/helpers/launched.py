"""Recipes whose servers are started by the run, with `fake_vllm` in vLLM's place, and what is left of such servers."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vold.engines.launch.family import SHARED
from vold.run.alive import every

FAKE = Path(__file__).with_name("fake_vllm.py")
DIGITS = {"kind": "digits", "form": "text"}


def launch(*args: str, **more: Any) -> dict[str, Any]:
    """A `launch` section of one fake server on the processor."""
    return {"devices": ["cpu"], "python": str(FAKE), "args": list(args), **more}


def fault(name: str) -> dict[str, Any]:
    return launch("--fault", name)


def recipe_dict(home: Path, **teacher: Any) -> dict[str, Any]:
    """A run of all stages in few steps whose teacher, rollouts and evaluation are on servers of its own."""
    few = {"max_new_tokens": 12, "temperature": 1.0}
    return {
        "run": {"dir": str(home / "run")},
        "student": {"path": "demo:student"},
        "teacher": {"path": "demo:teacher", "server": {"launch": launch(), "patience": 60, **teacher}},
        "tasks": {
            "cold_start": {**DIGITS, "split": "train", "size": 12, "seed": 1},
            "train": {**DIGITS, "split": "train", "size": 20, "seed": 2},
            "text": {**DIGITS, "split": "test", "size": 2, "seed": 3},
        },
        "traces": {"tasks": "cold_start", "sampling": few, "batch_size": 4},
        "sft": {"steps": 2, "batch_size": 4, "optimizer": {"lr": 1e-3, "warmup_steps": 1}, "checkpoint_every": 1},
        "align": {"limit": 2, "rollouts": 1},
        "distill": {
            "tasks": "train",
            "prompts_per_step": 2,
            "rollouts": 2,
            "steps": 3,
            "sampling": few,
            "engine": {"launch": launch(), "patience": 60},
            "mismatch": {"action": "warn"},
            "optimizer": {"lr": 1e-3, "warmup_steps": 1},
            "checkpoint_every": 1,
        },
        "eval": {"tasks": ["text"], "sampling": few, "endpoint": {"launch": launch()}},
    }


def of_run(home: Path) -> list[int]:
    """Processes that work in this directory, or below it: servers and their workers, which are started there."""
    return sorted(one.pid for one in every() if one.state not in "ZX" and _inside(one.pid, home))


def _inside(pid: int, home: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")).is_relative_to(home.resolve())
    except OSError:
        return False


def gone(pid: int) -> None:
    """Come back when a process that is no child of ours has ended; it has two minutes."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 120)[0], f"process {pid} is still there"
    finally:
        os.close(fd)


def keepers_of(home: Path) -> Iterator[int]:
    """The keepers that the records of a run name."""
    for record in home.glob("run/*/servers/*.json"):
        yield int(json.loads(record.read_text())["keeper"][0])


def shared_memory(home: Path) -> set[str]:
    """Names in /dev/shm that fake servers of a folder have made."""
    made = set()
    for segment in Path(SHARED).glob("fake_vllm_*"):
        with contextlib.suppress(FileNotFoundError):  # it is another test's
            if Path(os.fsdecode(segment.read_bytes().rstrip(b"\0"))).is_relative_to(home.resolve()):
                made.add(segment.name)
    return made


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def gpus_are(monkeypatch: pytest.MonkeyPatch, folder: Path, *numbers: int) -> None:
    """A machine with these, as `nvidia-smi` tells."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo {n}\n" for n in numbers))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
