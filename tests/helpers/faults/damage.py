"""Files, rows and folders of whole and half-done runs, damaged in every way, and the verb that reads them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import vold.evals.answering
import vold.training.metrics_file
import vold.training.stored_rows
from faults import damages
from faults.damages import Named
from faults.frame import Ended, Fault, Outcome, judged, vold_in
from faults.runs import Runs, copy, differences, runs
from killed import after, killer, write_states_at_once


@dataclass(frozen=True)
class Scene:
    """A state of the run, and a verb that reads it.

    Attributes:
        name: of the state.
        place: copies it into a directory.
        argv: the verb and what follows.
        after: the stage that the verb then has ended; none for a verb that only reads, whose words and page must be
            the same.
    """

    name: str
    place: Callable[[Path], None]
    argv: tuple[str, ...]
    after: str | None


def faults() -> list[Fault]:
    """All of them."""
    for verb in ("show", "compare"):
        _reading(verb)  # before the processes part that inject
    out = []
    for scene, path, found in _cases(runs()):
        for name, damage in found:
            inject = partial(_inject, scene, path, damage)
            out.append(Fault("damage", f"{scene.name}, `vold {scene.argv[0]}`: {path}: {name}", inject))
    return out


def _cases(made: Runs) -> Iterator[tuple[Scene, str, Iterable[Named]]]:
    """What is damaged in which state."""
    yield from _lists(made)
    yield from _small_files(made)
    yield from _folders(made)


def _lists(made: Runs) -> Iterator[tuple[Scene, str, Iterable[Named]]]:
    begun = {stage: _half_done(made, stage) for stage in ("traces", "sft", "balance", "distill", "eval")}
    for stage, path in (
        ("traces", "run/traces/traces.jsonl"),
        ("balance", "run/balance/labels.jsonl"),
        ("eval", "run/eval/base/image.jsonl"),
        ("sft", "run/sft/metrics.jsonl"),
        ("distill", "run/distill/metrics.jsonl"),
    ):
        file = made.home / "half" / stage / path
        yield begun[stage], path, damages.of_lines(file)
        # Of the metrics only steps that the state has behind it are read again.
        yield begun[stage], path, damages.of_fields(file, 1, each=1)
    path, file = "run/traces/traces.jsonl", made.home / "before" / "sft" / "run/traces/traces.jsonl"
    finished = Scene("finished traces", partial(made.before, "sft"), ("sft", made.recipe), "sft")
    yield finished, path, damages.of_lines(file)
    yield finished, path, damages.of_fields(file, 5)
    path, file = "run/eval/sft/text.jsonl", made.after("eval") / "run/eval/sft/text.jsonl"
    for verb in ("eval", "compare"):
        yield _whole(made, verb), path, damages.of_lines(file)
        yield _whole(made, verb), path, damages.of_fields(file, 4, each=1)
    for verb, path in (
        ("show", "run/distill/metrics.jsonl"),
        ("show", "run/eval/vold/image.jsonl"),
        ("balance", "run/balance/labels.jsonl"),
    ):
        yield _whole(made, verb), path, damages.of_lines(made.after("eval") / path)


def _small_files(made: Runs) -> Iterator[tuple[Scene, str, Iterable[Named]]]:
    shown, evaluated, compared = _whole(made, "show"), _whole(made, "eval"), _whole(made, "compare")
    for stage in ("sft", "eval"):
        yield _half_done(made, stage), f"run/{stage}/settings.json", damages.of_json()
    # A page leaves out what is not there, such as a stage that has not run, and takes what other versions wrote; and
    # the first half of a recipe is a recipe.
    for path, ways in (
        ("run/eval/results.json", damages.of_json()),
        ("run/versions.json", damages.of_json()),
        ("run/recipe.yaml", damages.of_any_file()),
    ):
        harmless = ("deleted", "its keys without values", *(("cut",) if path.endswith(".yaml") else ()))
        yield shown, path, [(name, way) for name, way in ways if not name.startswith(harmless)]
    for name in ("model.json", "text.protocol.json"):
        path = f"run/eval/base/{name}"
        yield evaluated, path, damages.of_json()
        yield evaluated, path, damages.of_values(made.after("eval") / path)
    path = "run/eval/sft/text.protocol.json"
    yield compared, path, damages.of_json()
    yield compared, path, damages.of_values(made.after("eval") / path)
    yield shown, "run/distill/rollouts/step-000005.safetensors", _of_rollouts()


def _folders(made: Runs) -> Iterator[tuple[Scene, str, Iterable[Named]]]:
    state = ("weights.safetensors", "optimizer.safetensors", "state.json")
    model = ("model.safetensors", "config.json", "tokenizer.json")
    for stage in ("sft", "distill"):
        begun = _half_done(made, stage)
        yield begun, f"run/{stage}/step-000002", damages.of_a_folder(state)
        yield begun, f"run/{stage}/step-000002", damages.of_tensors("weights.safetensors")
        yield begun, f"run/{stage}/step-000002", damages.of_tensors("optimizer.safetensors")
        yield begun, f"run/{stage}", _beside()
    start = Scene("before distill", partial(made.before, "distill"), ("distill", made.recipe), "distill")
    yield start, "run/sft/final", damages.of_a_folder(model)
    yield start, "run/sft/final", damages.of_tensors("model.safetensors")
    yield _whole(made, "sft"), "run/sft/final", damages.of_a_folder(model)


def _of_rollouts() -> Iterator[Named]:
    for name, damage in damages.of_any_file():
        if name != "deleted":  # then another step is the last that is stored
            yield name, damage
    for place in (2, 9, 20, 300, 2000, -1, -300):
        yield f"bit turned at byte {place}", partial(damages.turn, place=place)


def _beside() -> Iterator[Named]:
    """Folders and files beside the states of a stage."""
    for name in ("step-old", "step-000004.bak", "step-", "step--1", "step-1e3", ".step-000009.tmp", ".step-01.gone"):
        yield f"a folder {name} beside", partial(_folder, name=name)
    yield "a folder of a later step beside", partial(_folder, name="step-000009")
    yield "a file of a later step beside", lambda d: (d / "step-000009").touch()


def _folder(beside: Path, name: str) -> None:
    (beside / name).mkdir()


def _inject(scene: Scene, path: str, damage: Callable[[Path], Any], home: Path) -> Outcome:
    scene.place(home)
    damage(home / path)
    ended = vold_in(scene.argv, home)
    outcome = judged(ended, lambda: _same(scene, home, ended))
    if outcome.verdict == "clear" and Path(path).name not in ended.said:
        return Outcome("lost", f"it does not say where: {ended.said[-300:]}")
    return outcome


def _same(scene: Scene, home: Path, ended: Ended) -> bool:
    made = runs()
    if scene.after is not None:
        return [f for f in differences(home, made.after(scene.after)) if not f.endswith("notes.md")] == []
    said, page = _reading(scene.argv[0])
    return ended.said == said and _page(home) == page


@cache
def _reading(verb: str) -> tuple[str, bytes]:
    """What a verb says of the whole run, and the page that it writes."""
    made = runs()
    scene, home = _whole(made, verb), made.home / f"read-{verb}"
    scene.place(home)
    ended = vold_in(scene.argv, home)
    assert ended.code == 0, ended.said
    return ended.said, _page(home)


def _page(home: Path) -> bytes:
    file = home / "run" / "report.html"
    return file.read_bytes() if file.exists() else b""


def _whole(made: Runs, verb: str) -> Scene:
    """The finished run."""
    argv = {
        "eval": ("eval", made.recipe),
        "sft": ("sft", made.recipe),
        "balance": ("balance", made.recipe),
        "show": ("show", "run"),
        "compare": ("compare", "run/eval/base", "run/eval/sft"),
    }[verb]
    after = None if verb in ("show", "compare") else "eval"
    return Scene("finished run", partial(copy, made.after("eval")), argv, after)


HALF: dict[str, tuple[Any, int]] = {
    "traces": (vold.training.stored_rows, 3),
    "balance": (vold.training.stored_rows, 3),
    "sft": (vold.training.metrics_file, 4),
    "distill": (vold.training.metrics_file, 4),
    "eval": (vold.evals.answering, 3),
}
"""A stage is killed when this module appends to its list for the n-th time."""


def _half_done(made: Runs, stage: str) -> Scene:
    """A stage that was killed, and goes on."""
    place = made.home / "half" / stage
    if not place.exists():
        made.before(stage, place)
        ended = vold_in((stage, made.recipe), place, partial(_kill_at_append, *HALF[stage]))
        assert ended.code == -signal.SIGKILL, ended.said
    return Scene(f"half-done {stage}", partial(copy, place), (stage, made.recipe), stage)


def _kill_at_append(module: Any, count: int) -> None:
    write_states_at_once()
    module.append_jsonl = after(killer(count), module.append_jsonl)
