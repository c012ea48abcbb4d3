"""The page in a real browser: rollouts by keyboard, at every width; a run that is killed and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import tiny
from browser import evaluate
from vold.run.state import state_of
from watching import served, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


STATE = "document.querySelector('.badge.state').textContent"
REWARD = "JSON.parse(document.querySelector('#training-now [data-lines]').dataset.lines)[0].points.map(p => p[0])"
STEPS = "[...document.querySelector('#choose').elements.step.options].slice(1).map(o => +o.value)"


class Training:
    """`vold distill` of a tiny recipe in a process of its own."""

    def __init__(self, home: Path) -> None:
        raw = tiny.recipe_dict(home)
        raw["distill"] |= {
            "steps": 100_000,
            "keep_rollouts_every": 2,
            "checkpoint_every": 3,
            "init": raw["student"]["path"],
        }
        self.run, self.recipe = Path(raw["run"]["dir"]), home / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(raw))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "vold.cli", "distill", str(self.recipe)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    found = Training(tmp_path)
    yield found
    found.kill()


def test_a_run_is_watched_while_it_is_killed_and_resumed(training: Training) -> None:
    (training.run / "distill").mkdir(parents=True)
    (training.run / "recipe.yaml").write_text(training.recipe.read_text())
    steps: list[str | Callable[[], None]] = [
        until(f"{STATE} === 'stopped'"), training.start,
        until(f"{STATE} === 'running' && document.querySelector('#training-now [data-lines]') && {REWARD}.length > 4"),
        until(f"{STEPS}.length > 1"), training.kill, until(f"{STATE} === 'stopped'"),
        f"globalThis.before = {REWARD}.length", training.start,
        until(f"{STATE} === 'running' && {REWARD}.length > globalThis.before + 3"), training.kill,
        until(f"{STATE} === 'stopped'"), REWARD, STEPS, "document.querySelector('#heard').textContent",
    ]  # fmt: skip
    with served(training.run) as server:
        (values,) = evaluate(server.address, steps)
    reward, stored, heard = values[-3:]
    assert reward == sorted({*reward}) and reward[0] == 0 and len(reward) == reward[-1] + 1  # every step once
    assert stored == sorted({*stored}) and all(step % 2 == 0 for step in stored)
    assert heard.startswith("Live")
    assert state_of(training.run, finished=False) == "stopped"
