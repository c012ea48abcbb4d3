"""Whether a run may write where it will write, and whether there is room for what it will leave there."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import ConfigError
from vold.evals.subject import Finding
from vold.model.families import linear_layers, part_of
from vold.run.as_run import outputs
from vold.run.directory import refuse_others
from vold.run.recipe import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.evals.subject import Subject
    from vold.model.policy import Policy
    from vold.run.model_sections import Lora
    from vold.run.recipe import Distill, Recipe

TRACE, ANSWER, ROLLOUT = (16, 300), (8, 700), (32, 1024)
"""Bytes for each token of a response, and for each response: of a line of traces, of an evaluation, and of stored
rollouts. Measured on the demo, and rounded up."""
BLOCK = 4096
"""Bytes that a small file takes."""
STEP = 1024
"""Bytes of a step's metrics."""
MODEL_FILES = 16
"""Files of a model directory or a checkpoint."""


@dataclass(frozen=True)
class Writes:
    """What a run puts in one place: bytes by what they are for, and how many files."""

    where: str
    path: Path
    parts: dict[str, int]
    files: int

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.parts.values())


def probe(path: Path, where: str) -> None:
    """Make and remove a folder and a file in a path, or in the lowest folder above it that there is.

    Raises:
        ConfigError: they could not be made.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".vold-probe-", dir=_nearest(path)) as made:
            (Path(made) / "probe").write_bytes(bytes(BLOCK))
    except (OSError, ValueError) as error:
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        fix = "choose a place that you may write to and that has room, or make room there"
        raise ConfigError("nothing can be written here", where=f"{where}: {path}", got=got, fix=fix) from None


def _nearest(path: Path) -> Path:
    """The path, or the lowest folder above it that there is."""
    path = path.absolute()
    for one in (path, *path.parents):
        try:
            found = one.lstat()
        except FileNotFoundError:
            continue
        if not one.is_dir():
            what = "a link to no folder" if stat.S_ISLNK(found.st_mode) else "no folder"
            raise NotADirectoryError(errno.ENOTDIR, f"{one} is {what}")
        return one
    return Path(path.anchor)


def places(subject: Subject) -> Iterator[Finding]:
    """A probe in every place that a run writes to."""
    recipe = subject.recipe
    for stage in ORDER:
        if getattr(recipe, stage) is not None:
            probe(recipe.run.dir / stage, "run.dir")
    beside = _elsewhere(recipe, recipe.distill, 0) if recipe.distill is not None else []
    for one in beside:
        probe(one.path, one.where)
    named = [f"run.dir {recipe.run.dir}", *(f"{w.where} {w.path}" for w in beside)]
    yield Finding("can be written", ", ".join(named))


def begun(subject: Subject) -> Iterator[Finding]:
    """Says nothing where each stage can go on with what the run directory holds of it.

    Raises:
        ConfigError, CheckpointError: as the stage itself would.
    """
    recipe = subject.recipe.with_align()
    for stage in recipe.stages:
        if outputs(recipe.run.dir / stage):
            refuse_others(recipe, stage)
    yield from ()


def disk(subject: Subject) -> Iterator[Finding]:
    """What is planned beside what is free, on every file system that a run writes to. `places` has looked at them."""
    devices: dict[int, list[tuple[Writes, Path]]] = {}
    for writes in planned(subject):
        home = _nearest(writes.path)
        devices.setdefault(home.stat().st_dev, []).append((writes, home))
    for together in devices.values():
        yield _room([writes for writes, _ in together], together[0][1])


def _room(together: list[Writes], home: Path) -> Finding:
    """What is planned on one file system, but for what a run has left there already, beside what is free."""
    system = os.statvfs(home)
    there = [_size_of(writes.path) for writes in together]
    left = max(0, sum(w.total for w in together) - sum(size for size, _ in there))
    files = max(0, sum(w.files for w in together) - sum(count for _, count in there))
    free, names = system.f_bavail * system.f_frsize, ", ".join(f"{w.where} {w.path}" for w in together)
    parts = [(name, size) for w in together for name, size in w.parts.items() if size]
    said = ", ".join(f"{name} {size_text(size)}" for name, size in parts)
    short = left > free
    text = f"{size_text(left)} still to be written ({said}), {size_text(free)} free"
    if system.f_files and files > system.f_favail:
        short, text = True, f"{text}; {files:,} files, and room for {system.f_favail:,}"
    return Finding(f"disk of {names}", text, short)


def _size_of(path: Path) -> tuple[int, int]:
    """Bytes and files below a path."""
    sizes = [found.st_size for f in path.rglob("*") if (found := f.lstat()) and stat.S_ISREG(found.st_mode)]
    return sum(sizes), len(sizes)


def size_text(size: int) -> str:
    """Bytes in GiB, or in MiB below a tenth of that.

    Example:
        >>> size_text(3 * 2**30), size_text(2**20)
        ('3.0 GiB', '1.0 MiB')
    """
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:,.1f} MiB"


def planned(subject: Subject) -> list[Writes]:
    """What the stages of a recipe write from beginning to end, each response as long as it may be.

    Of a training stage there are two states at a time while one replaces the other, and later one and the model it
    ends with.
    """
    recipe, problems = subject.recipe, {these.key: len(these.tasks) for these in subject.task_sets}
    parts: dict[str, int] = {}
    files = 0
    state, model = state_bytes(subject.student, recipe.learner.lora) if recipe.uses_student else (0, 0)
    if recipe.traces is not None and recipe.traces.sampling is not None:
        parts["traces"] = problems["traces.tasks"] * _line(TRACE, recipe.traces.sampling.max_new_tokens)
    for name in ("sft", "distill"):
        if (stage := getattr(recipe, name)) is not None:
            parts[f"{name}: states and model"] = state + max(state, model)
            parts["metrics"] = parts.get("metrics", 0) + stage.steps * STEP
            files += 2 * MODEL_FILES
            if stage.eval is not None:
                times = stage.eval.times(stage.steps)
                kept = 0 if stage.eval.keep_every is None else len(times[:: stage.eval.keep_every])
                parts[f"{name}: models kept"] = (kept + 2) * model  # the best one while another takes its place
                files += (kept + 2) * MODEL_FILES
    if (d := recipe.distill) is not None:
        kept = -(-d.steps // d.keep_rollouts_every) + 1
        parts["rollouts"] = kept * d.responses * _line(ROLLOUT, d.sampling.max_new_tokens)
        files += kept
    if (e := recipe.eval) is not None:
        asked = sum(n for key, n in problems.items() if key.startswith("eval.tasks")) * e.samples
        models = len(e.models) if e.models else 1 + sum(s is not None for s in (recipe.sft, recipe.distill))
        parts["answers"] = asked * models * _line(ANSWER, e.sampling.max_new_tokens)
    out = [Writes("run.dir", recipe.run.dir, parts, files)]
    return out + (_elsewhere(recipe, d, model) if d is not None else [])


def _elsewhere(recipe: Recipe, d: Distill, model: int) -> list[Writes]:
    """Caches of teachers, and weights on their way to servers."""
    out = []
    caches = [t.cache for t in recipe.scoring_models if t.cache is not None] if d.objective.uses_teacher else []
    for path in dict.fromkeys(caches):
        needs, answers = d.objective.needs, d.steps * d.responses
        token = 4 * (1 + needs.candidates) + 12 * needs.top_k
        one = -(-d.sampling.max_new_tokens * token // BLOCK) * BLOCK
        out.append(Writes("teacher.cache", path, {"scores": answers * one}, answers))
    if d.engine is not None and d.engine.weights_dir is not None:
        out.append(Writes("distill.engine.weights_dir", d.engine.weights_dir, {"weights": model}, MODEL_FILES))
    return out


def _line(costs: tuple[int, int], tokens: int) -> int:
    token, line = costs
    return token * tokens + line


def state_bytes(student: Policy, lora: Lora | None) -> tuple[int, int]:
    """Bytes of a training state, and of a saved model.

    A state holds the trained weights, two float32 moments of each, and a float32 copy of those below float32.
    """
    everything = sum(p.numel() * p.itemsize for p in student.model.parameters())
    if lora is None:
        trained = [(p.numel(), p.itemsize) for _, p in student.trainable()]
        extra = 0
    else:
        base, family = student.model.base_model, student.family
        layers = [base.get_submodule(name) for name in linear_layers(base, family)]
        adapters = sum(lora.rank * (m.in_features + m.out_features) for m in layers)
        beside = [p for n, p in base.named_parameters() if part_of(n, family) and p.requires_grad]
        trained = [(adapters, 4), *((p.numel(), p.itemsize) for p in beside)]
        extra = 4 * adapters
    state = sum(n * (size + 8 + 4 * (size < 4)) for n, size in trained)
    return state, everything + extra
