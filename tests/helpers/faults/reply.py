"""Servers that lie, trickle, hang, or talk nonsense: teachers, rollouts, a tested model and a judge.

Every fault is one real `vold` command with a real server beside it. It has to end as without the fault, weights and
rows compared, or to stop in words; and where it stops, the same command, with a server that is well, has to end as
without the fault: nothing wrong has been kept. What no client can see is not among them: docs/engines.md has it.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

import layouts
import tiny
from engine_backends import saved, text_model
from faults.frame import Ended, Fault, Outcome, judged, vold_in
from faults.lying import Lie, LyingServer
from faults.reply_values import values
from faults.reply_wires import wires
from faults.runs import differences
from vold.engines import deadline
from vold.engines.chat_api import EndpointSampler
from vold.engines.http import HttpClient
from vold.engines.launch.server import HeldPort

PATIENCE = 0.6
"""Seconds, in every recipe here."""
SOME = 5
"""One client speaks HTTP for all: of its faults, other clients than a teacher's meet one of so many."""
LONGEST = 15.0
"""Seconds of a command that stops, on a machine with other work."""


@dataclass(frozen=True)
class Scene:
    """A command that talks to a server.

    Attributes:
        verb: of the command.
        section: its recipe, by the server's address and the directory of the models.
        about: what its requests are about (`faults.lying.about`).
    """

    verb: str
    section: Callable[[str, Path], dict[str, Any]]
    about: tuple[str, ...]


def _on(url: str, **more: Any) -> dict[str, Any]:
    return {"urls": [url], "model": "tiny", "patience": PATIENCE, "concurrency": 2, **more}


def _distill(home: Path, **changes: Any) -> dict[str, Any]:
    student = str(home / "student")
    return {
        "run": {"dir": "run", "seed": 5, "threads": 1},
        "student": {"path": student, "freeze": []},
        "teacher": {"path": str(home / "teacher")},
        "tasks": {"train": tiny.TASKS["train"]},
        "distill": {
            "tasks": "train", "init": student, "steps": 2, "prompts_per_step": 2, "rollouts": 2,
            "objective": {"method": "vold", "teacher_loss": {"coefficient": 1.0}},
            "sampling": {"max_new_tokens": 10, "temperature": 1.0}, "optimizer": {"lr": 1e-3, "warmup_steps": 1},
            "checkpoint_every": 10, "keep_rollouts_every": 1, **changes,
        },
    }  # fmt: skip


def _scored(url: str, home: Path) -> dict[str, Any]:
    raw = _distill(home)
    raw["teacher"] |= {"server": _on(url), "cache": "scores"}
    return raw


def _likeliest(url: str, home: Path) -> dict[str, Any]:
    loss = {"estimator": "jsd", "top_k": {"k": 3, "support": "teacher"}}
    raw = _distill(home, objective={"method": "vold", "teacher_loss": loss})
    raw["teacher"] |= {"server": _on(url), "cache": "scores"}
    return raw


def _candidates(url: str, home: Path) -> dict[str, Any]:
    loss = {"estimator": "reverse_kl", "top_k": {"k": 3, "support": "student"}}
    raw = _distill(home, objective={"method": "vold", "teacher_loss": loss}, engine=_on(url))
    raw["student"]["path"] = raw["distill"]["init"] = str(home / "teacher")  # one server is both
    raw["teacher"] |= {"server": _on(url), "cache": "scores"}
    raw["distill"]["optimizer"]["lr"] = 1e-9  # and stays the same teacher
    return raw


def _rollouts(url: str, home: Path) -> dict[str, Any]:
    return _distill(home, engine=_on(url))


def _traces(url: str, home: Path) -> dict[str, Any]:
    raw = _distill(home)
    del raw["distill"]
    raw["teacher"]["server"] = _on(url)
    return raw | {"traces": {"tasks": "train", "sampling": {"max_new_tokens": 10}, "batch_size": 6}}


def _tested(url: str, home: Path) -> dict[str, Any]:
    one = {"urls": [url], "concurrency": 1}
    return {
        "run": {"dir": "run"},
        "student": {"path": "none"},
        "eval": {
            "sampling": {"max_new_tokens": 64},
            "benchmarks": {"mathvista": {"path": str(home / "m.zip"), "protocol": "vlmevalkit"}},
            "endpoint": one | {"model": "served"},
            "judge": one | {"model": "judge"},
        },
    }


SCENES = {
    "teacher": Scene("distill", _scored, ("score", "/v1/models")),
    "likeliest": Scene("distill", _likeliest, ("score",)),
    "candidates": Scene("distill", _candidates, ("candidates", "sample")),
    "rollouts": Scene("distill", _rollouts, ("sample", "/weight_info")),
    "traces": Scene("traces", _traces, ("sample",)),
    "tested": Scene("eval", _tested, ("chat", "judge")),
}


@cache
def models() -> Path:
    """A directory with what the recipes name, removed with the process that asks first."""
    home = Path(tempfile.mkdtemp(prefix="faults-reply-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    saved(text_model(3), home / "student")
    saved(text_model(1), home / "teacher")
    layouts._mathvista_zip(home / "m.zip")
    return home


@cache
def right(scene: str) -> Path:
    """The directory of a run of a scene with a server that is well."""
    home = models() / "right" / scene
    home.mkdir(parents=True)
    port = HeldPort()
    ended = command(scene, None, home, port)
    port.free()
    assert ended.code == 0, ended.said
    return home


def command(scene: str, lie: Lie | None, home: Path, port: HeldPort) -> Ended:
    """The scene's command in a child that also holds its server."""
    made, recipe = SCENES[scene], home / "recipe.yaml"

    def before() -> None:
        HttpClient.first_wait, HttpClient.most_bytes, deadline.TICK_SECONDS = 0.001, 1 << 22, 0.01
        HttpClient.shortest = HttpClient.patience = 30.0 if lie is None else PATIENCE
        EndpointSampler.most_bytes = 1 << 22
        server = LyingServer(text_model(3 if scene == "rollouts" else 1), lie, port)
        recipe.write_text(yaml.safe_dump(made.section(server.url, models())))

    return vold_in([made.verb, str(recipe)], home, before, 20.0)


def inject(scene: str, lie: Lie, home: Path) -> Outcome:
    """Run a scene with a lie, and judge."""
    port = HeldPort()
    try:
        began = time.monotonic()
        outcome = judged(command(scene, lie, home, port), lambda: not _other(home, right(scene)))
        if outcome.verdict != "clear":
            return outcome
        if (seconds := time.monotonic() - began) > LONGEST:
            return Outcome("lost", f"it took {seconds:.0f} s to say so")
        again = command(scene, None, home, port)
        if again.code != 0:
            return Outcome("lost", f"with a server that is well it does not go on: {again.said.strip()[-300:]}")
        other = _other(home, right(scene))
        return Outcome("lost", f"something wrong was kept: {', '.join(other)[:300]}") if other else outcome
    finally:
        port.free()


def _other(one: Path, two: Path) -> list[str]:
    """Weights and rows that differ; the settings hold the server's address."""
    return [name for name in differences(one, two) if name.endswith((".safetensors", ".jsonl"))]


def _lies() -> Iterator[tuple[str, Lie]]:
    for scene, made in SCENES.items():
        for about in made.about:
            for lie in values(scene, about):
                yield scene, lie
    for start, (scene, about) in enumerate([("rollouts", "sample"), ("tested", "chat"), ("tested", "judge")]):
        for lie in itertools.islice(wires(about), start, None, SOME):
            yield scene, lie
    for lie in wires("score"):
        yield "teacher", lie


def faults() -> list[Fault]:
    """Every lie in its scene."""
    for scene in SCENES:
        right(scene)
    return [Fault("reply", f"{scene}, {lie.about}: {lie.name}", partial(inject, scene, lie)) for scene, lie in _lies()]
