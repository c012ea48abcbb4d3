"""`vold branch`: a new run that shares the finished stages of another and goes on from there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import CheckpointError, ConfigError
from vold.run.as_run import BRANCHED, RECIPE, Branch, outputs, stage_recipes, write_run_recipe
from vold.run.console import console
from vold.run.directory import is_finished
from vold.run.files import temporary_of, write_json, write_text
from vold.run.folders import HALF, MANIFEST, verify_directory
from vold.run.metrics import TRACKING
from vold.run.recipe import ORDER, dump_recipe, load_recipe
from vold.run.settings import TRAINED, changed, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.run.recipe import Recipe

ENDS = {"traces": "summary.json", "align": "align.json", "balance": "summary.json", "eval": "results.json"}
"""What a stage that trains nothing writes last."""


def branch(run: Path, stage: str, new: Path, overrides: Sequence[str] = ()) -> Path:
    """Make a run that has the finished stages of another, up to one of them. Returns its recipe.

    Folders with a manifest (models, states, sets), which are only ever replaced as a whole, are shared by hard links
    where the file system has them; all other files are copied. Nothing that one run writes later is seen by the other.

    Args:
        run: the run to start from; it is only read.
        stage: the last stage to share.
        new: the directory of the new run, which must not exist.
        overrides: `key.path=value` for the stages to come.

    Raises:
        ConfigError: there is no such run or stage, it is not finished, `new` exists, or an override changes a stage
            that is shared.
        CheckpointError: a file of a shared stage is missing or damaged.
    """
    if not (run / RECIPE).is_file():
        raise ConfigError("there is no run here", where=str(run), got=f"no {RECIPE}", fix="give a run directory")
    if os.path.lexists(new):
        raise ConfigError("something is there already", where=str(new), fix="name a directory that does not exist")
    ran = stage_recipes(run)
    shared = _shared(run, stage, ran)
    recipe = load_recipe(run / RECIPE, [f"run.dir={json.dumps(str(new))}", *overrides])
    for name in shared:
        _refuse_change(ran[name], recipe, name)
    temporary = temporary_of(new)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name in shared:
            console.print(f"{name}: comparing every file with its hash and sharing it", markup=False)
            _share(run / name, temporary / name)
        write_text(temporary / RECIPE, dump_recipe(recipe))
        write_json(temporary / BRANCHED, Branch(str(run.resolve()), stage, tuple(shared)))
        temporary.rename(new)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_run_recipe(recipe)
    return new / RECIPE


def _shared(run: Path, stage: str, ran: Mapping[str, Recipe]) -> list[str]:
    """The finished stages up to this one. Others are left out: it did not need them."""
    if stage not in ORDER:
        raise ConfigError("no stage has this name", where="--from", got=stage, fix=f"one of {', '.join(ORDER)}")
    found = [name for name in ORDER[: ORDER.index(stage) + 1] if name in ran and _has_ended(run / name, ran[name])]
    if stage not in found:
        made = outputs(run / stage) if (run / stage).is_dir() else []
        raise ConfigError(
            f"this run has not finished `{stage}`" if made else f"this run has no `{stage}`",
            where=str(run / stage),
            got=f"finished: {', '.join(found) or 'nothing'}",
            fix=f"run `vold {stage} {run / RECIPE}` to its end, or branch from a stage before it",
        )
    return found


def _has_ended(directory: Path, recipe: Recipe) -> bool:
    name = directory.name
    if name in TRAINED:
        return is_finished(directory, getattr(recipe, name).steps)
    return (directory / ENDS[name]).is_file()


def _refuse_change(before: Recipe, now: Recipe, stage: str) -> None:
    """The stages to come may differ from those that are shared; a shared one is as it is."""
    old = settings_of(before, stage)
    new = settings_of(now, stage) if getattr(now, stage) is not None else {}
    if differ := [k for k in changed(old, new) if k.startswith((f"{stage}.", "student.path"))]:
        raise ConfigError(
            f"`{stage}` is shared with the other run and has these settings already",
            where=differ[0],
            got=", ".join(f"{k}: {old.get(k)} there, {new.get(k)} wanted" for k in differ[:3]),
            fix="branch from a stage before it, or leave them",
        )


def _share(source: Path, target: Path) -> None:
    """A finished stage in another place."""
    whole = {str(file.parent) for file in source.glob(f"*/{MANIFEST}")}

    def link_or_copy(file: str, to: str) -> None:
        if not (os.path.dirname(file) in whole and _linked(file, to)):
            shutil.copyfile(file, to)

    try:
        shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns(*HALF, TRACKING))
    except (OSError, shutil.Error) as error:
        raise CheckpointError("this stage cannot be shared", where=str(source), got=str(error)[:500]) from error
    for folder in whole:
        verify_directory(target / Path(folder).name)


def _linked(file: str, to: str) -> bool:
    try:
        os.link(os.path.realpath(file), to)
    except OSError:
        return False
    return True
