"""Directories of a run and its stages: who works there, what a stage goes on with, and what is kept of a start.

What a start writes about itself counts only when its stage has made something: a start that was refused, or died
before that, binds nobody. Every stage keeps the recipe it ran with, and the run's own is put together from these
(`vold.run.as_run`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from vold import __version__
from vold.errors import CheckpointError, ConfigError
from vold.run.as_run import RECIPE, notes_of, outputs, write_run_recipe, write_stage_recipe
from vold.run.console import console
from vold.run.doors import SOURCE_OF, sources
from vold.run.files import read_bytes, read_json, write_bytes, write_json, write_text
from vold.run.folders import MANIFEST, latest_checkpoint, step_of
from vold.run.lock import confirm, owning
from vold.run.precision import settled
from vold.run.records import Count
from vold.run.settings import FILTERS, TRAINED, changed, parents, seen_from, settings_of
from vold.run.summaries import DataCard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vold.run.recipe import Recipe
    from vold.run.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

SETTINGS, DATA, VERSIONS = "settings.json", "data.json", "versions.json"
CERTIFICATES = "certificates.json"
"""What the run's models were tried for, by model, with the outcome of each test."""
EARLY = "ended.json"
"""Of a training stage that has not all steps of the recipe."""
BEGAN_WITH = "began with: "
"""Keys of settings.json that name a file of the run and hold its digest."""


@dataclass(frozen=True)
class Early:
    """The end of a stage before its last step: steps behind it, and why."""

    step: Count
    why: str


def works_in_run(
    stage: str,
) -> Callable[[Callable[Concatenate[Recipe, P], T]], Callable[Concatenate[Recipe, P], T]]:
    """Decorates what runs a stage: the precision of its models is settled, it computes with the recipe's threads, owns
    the run directory, and leaves nothing of a start that makes nothing.

    The function may then raise ConfigError besides: another process is at work there.
    """

    def decorate(work: Callable[Concatenate[Recipe, P], T]) -> Callable[Concatenate[Recipe, P], T]:
        @functools.wraps(work)
        def inside(recipe: Recipe, /, *args: P.args, **kwargs: P.kwargs) -> T:
            recipe = settled(recipe)
            with (
                owning(recipe.run.dir, stage) as owner,
                _undone_if_nothing_is_made(recipe.run.dir, stage, owner),
                recipe.run.own_threads(),
            ):
                return work(recipe, *args, **kwargs)

        return inside

    return decorate


@contextlib.contextmanager
def _undone_if_nothing_is_made(run: Path, stage: str, owner: bool) -> Iterator[None]:
    """Put back what `open_stage` has written if the block fails before the stage has made anything."""
    ours = [run / stage / name for name in (SETTINGS, RECIPE, DATA)]
    before = {file: read_bytes(file) for file in (run / RECIPE, run / VERSIONS, run / CERTIFICATES)} if owner else {}
    try:
        yield
    except BaseException:
        if owner and not outputs(run / stage):
            with contextlib.suppress(OSError, ConfigError):
                confirm(run)
                for file, content in {**dict.fromkeys(ours), **before}.items():
                    if content is None:
                        file.unlink(missing_ok=True)
                    else:
                        write_bytes(file, content)
                (run / stage).rmdir()
        raise


def open_stage(recipe: Recipe, stage: str) -> Path:
    """The directory of one stage of a run, with the recipe and versions beside it.

    Started again with other settings of the same stage, a run is refused: its two halves would not belong together.
    Task sets count by what they hold, not by their names; an evaluation may gain or lose whole task sets and
    benchmarks, and training more steps.

    Raises:
        ConfigError: the directory holds this stage of a different recipe, or one that has other steps behind it; or it
            reads what another stage of the run has made with other settings; or a tracker is not installed.
    """
    recipe.run.refuse_missing_trackers()
    recipe = settled(recipe)
    directory = recipe.run.dir / stage
    mine, notes = refuse_others(recipe, stage)
    if not outputs(directory):
        (directory / DATA).unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / SETTINGS, json.dumps(mine, indent=2, sort_keys=True) + "\n")
    write_stage_recipe(recipe, directory, list(dict.fromkeys(notes)))
    write_run_recipe(recipe, stage)
    write_json(recipe.run.dir / VERSIONS, versions())
    return directory


def refuse_others(recipe: Recipe, stage: str) -> tuple[Settings, list[str]]:
    """Compare a stage with what the run directory holds of it, and of those it reads from. Returns its settings, and
    what is to be said of what may differ and does.

    Raises:
        ConfigError, CheckpointError: see `open_stage`.
    """
    directory, mine = recipe.run.dir / stage, _settings(recipe, stage)
    notes = notes_of(directory) + _refuse_other_settings(recipe, directory, mine) if outputs(directory) else []
    _refuse_other_parents(recipe, stage)
    return mine, notes


def _settings(recipe: Recipe, stage: str) -> Settings:
    """What settings.json holds: all that decides the result, and digests of what the stage begins with and of
    the source of the user's own code."""
    began = {BEGAN_WITH + name: digest for name, digest in _beginnings(recipe, stage).items()}
    settings = settings_of(recipe, stage)
    return settings | began | sources(settings)


def _beginnings(recipe: Recipe, stage: str) -> dict[str, str]:
    """Files that a stage begins with, by what they are, with a digest; those that are not there are left out."""
    section, run = getattr(recipe, stage), recipe.run.dir
    files: dict[str, Path] = {}
    if "traces" in parents(recipe, stage):
        files["traces"] = run / "traces" / "traces.jsonl"
    if stage in ("distill", "balance"):
        files["model"] = Path(section.init or run / "sft" / "final") / MANIFEST
    return {name: _digest(file) for name, file in files.items() if file.is_file()}


def _digest(file: Path) -> str:
    """Of a file, or of the whole rows of a list: a torn last line is not read."""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1] if file.suffix == ".jsonl" else content
    return hashlib.sha256(whole).hexdigest()[:16]


def _stored(directory: Path) -> Settings:
    return read_json(directory / SETTINGS, dict, absent={}, fix=f"delete {directory} to start it afresh")


def _refuse_other_settings(recipe: Recipe, directory: Path, mine: Settings) -> list[str]:
    """Compare with the settings that a stage has begun with; returns what is to be said of the change.

    Raises:
        ConfigError: a key differs that may not.
        CheckpointError: a training stage has lost its settings.
    """
    stage, old = directory.name, _stored(directory)
    if not old and stage in TRAINED:
        fix = f"copy {directory / SETTINGS} again, or delete {directory} to start it afresh"
        raise CheckpointError(f"what `{stage}` was started with is not there any more", where=str(directory), fix=fix)
    if not old:
        return []
    differ = [key for key in changed(old, mine) if stage != "traces" or key not in FILTERS]
    steps = f"{stage}.steps"
    for key in [key for key in differ if key.startswith(SOURCE_OF)]:
        differ.remove(key)
        if key in old and key in mine:
            raise ConfigError(
                f"the {key} is not the same any more as when `{stage}` began",
                where=str(directory / SETTINGS),
                got=f"digest {old[key]} before, {mine[key]} now",
                fix=f"put the source back as it was; or use another run.dir, or delete {directory} to start it afresh",
            )
    for key in [key for key in differ if key.startswith(BEGAN_WITH)]:
        differ.remove(key)
        if key in old and key in mine:
            what = key.removeprefix(BEGAN_WITH)
            raise ConfigError(
                f"the {what} that `{stage}` began with {'are' if what == 'traces' else 'is'} not the same any more",
                where=str(directory / SETTINGS),
                got=f"digest {old[key]} before, {mine[key]} now",
                fix=f"`vold branch {recipe.run.dir} --from {'sft' if what == 'model' else what} NEW` goes on with what "
                f"is there now in a new run; or delete {directory} to start it afresh",
            )
    notes = []
    if stage in TRAINED and steps in differ:
        differ.remove(steps)
        notes = _more_steps(recipe, directory, old.get(steps))
    if differ:
        raise ConfigError(
            f"this run directory already holds `{stage}` with other settings",
            where=str(directory / SETTINGS),
            got=", ".join(f"{k}: {old.get(k)} before, {mine.get(k)} now" for k in differ[:3]),
            fix=_precisions(old, differ) + f"use another run.dir, or delete {directory} to start it afresh",
        )
    return notes


def _precisions(old: Settings, differ: Sequence[str]) -> str:
    """How to go on in the precision that a stage has begun with, where nothing else differs: `auto` is another one on
    another kind of device."""
    known = [key for key in differ if key.endswith(".dtype") and key in old]
    if known != list(differ):
        return ""
    return f"go on as it began with {' '.join(f'{key}={old[key]}' for key in known)}; or "


def _more_steps(recipe: Recipe, directory: Path, old: object) -> list[str]:
    """Whether a training stage can go on to another number of steps; returns what is to be said of its rates.

    Raises:
        ConfigError: it has more behind it, or no state to go on from.
    """
    stage, new = directory.name, int(getattr(recipe, directory.name).steps)
    done, schedule = steps_done(directory), getattr(recipe, stage).optimizer.schedule
    if done is None and (directory / "final").is_dir():
        raise ConfigError(
            f"`{stage}` has ended, and the state to go on from is not there any more",
            where=str(directory),
            got=f"{stage}.steps: {old} before, {new} now, no state",
            fix=f"set {stage}.steps={old}, or use another run.dir",
        )
    if new < (done or 0):
        raise ConfigError(
            f"`{stage}` has more steps behind it than it is to have",
            where=str(directory),
            got=f"{stage}.steps: {done} done, {new} wanted",
            fix=f"set {stage}.steps={done} or more, or use another run.dir",
        )
    if schedule == "constant" or not done:
        return []
    note = f"{stage}: its first {done} steps have the learning rates of a {schedule} schedule over {old} steps"
    console.print(
        f"{note}. From here on it has those of {new} steps, so it ends elsewhere than a run that was to have {new} "
        f"steps from the start; with schedule: constant the two are the same.",
        markup=False,
    )
    return [note]


def _refuse_other_parents(recipe: Recipe, stage: str) -> None:
    """Compare what a stage says of those it reads from with what these ran with.

    Raises:
        ConfigError: they differ in something that decides what is read.
    """
    for parent in parents(recipe, stage):
        directory = recipe.run.dir / parent
        old = _stored(directory)
        if getattr(recipe, parent) is None or not outputs(directory) or not old:
            continue
        there = seen_from(parent, recipe, old)
        here = seen_from(parent, recipe, settings_of(recipe, parent))
        if differ := changed(there, here):
            raise ConfigError(
                f"`{stage}` would go on from a `{parent}` that ran with other settings",
                where=str(directory),
                got=", ".join(f"{k}: {there.get(k)} there, {here.get(k)} in this recipe" for k in differ[:3]),
                fix=f"set them as in {directory / RECIPE}, or use another run.dir",
            )


def steps_done(directory: Path) -> int | None:
    """Steps that a training stage can go on after; None if it has no state."""
    state = latest_checkpoint(directory)
    return None if state is None else step_of(state)


def is_finished(directory: Path, steps: int) -> bool:
    """Whether a training stage has ended with its model: after so many steps, or early; one whose state is gone has."""
    done = steps_done(directory)
    return (directory / "final").is_dir() and (done is None or done >= steps or done == ended_early(directory))


def end_early(directory: Path, step: int) -> None:
    """Write down that a training stage ends with so many steps behind it, and why."""
    write_json(directory / EARLY, Early(step, "no evaluation was better than one before"))


def ended_early(directory: Path) -> int | None:
    """With how many steps a training stage has ended, if not with all of the recipe's."""
    file = directory / EARLY
    return read_json(file, Early).step if file.exists() else None


def record_data(directory: Path, key: str, cards: Mapping[str, DataCard]) -> None:
    """Write down which data a stage reads, in `data.json`: source, revision, content hash, rows left out.

    Args:
        directory: the stage's.
        key: where in the recipe the data is named.
        cards: what `vold.data.sources.Tasks` says of each file and published set.

    Raises:
        ConfigError: the stage began with other data.
    """
    if not cards:
        return
    file = directory / DATA
    known = read_json(file, dict[str, dict[str, DataCard]], absent={})
    for name, card in cards.items():
        before = known.get(key, {}).get(name)
        if before is not None and before.content_hash != card.content_hash:
            known_by = f"revision {before.revision} before, {card.revision} now, with " if card.revision else ""
            raise ConfigError(
                "the data of this stage has changed since it began",
                where=f"{key}: {name}",
                got=f"{known_by}other rows",
                fix="give the old revision or files, or delete the stage's directory to start it afresh",
            )
    write_json(file, {**known, key: cards})


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    import torch
    import transformers

    return {
        "vold": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
