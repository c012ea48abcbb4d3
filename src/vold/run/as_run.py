"""The recipe of a run as it really ran, put together from those that its stages ran with.

Each stage keeps its own as STAGE/recipe.yaml. RUN/recipe.yaml has the section of each stage that has made something as
that stage ran, and what it depends on; the rest is from the last start. What one recipe cannot say, such as two seeds,
stands in its first lines, as comments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.errors import CheckpointError, ConfigError
from vold.run.files import read_bytes, read_json, write_text
from vold.run.recipe import ORDER, Recipe, dump_recipe, load_recipe, recipe_from
from vold.run.settings import TEACHER_USERS, changed, settings_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

PRECEDENCE = ("distill", "sft", "traces", "balance", "align", "eval")
"""Whose word on what all share comes first: what has made the models."""
MAKES: Mapping[str, tuple[str, ...]] = {
    "traces": ("traces.jsonl",),
    "sft": ("metrics.jsonl", "step-*", "final"),
    "align": ("before-sft.json", "after-sft.json", "align.json", "self-check.json"),
    "balance": ("labels.jsonl", "set"),
    "distill": ("metrics.jsonl", "step-*", "final", "rollouts"),
    "eval": ("**/*.jsonl", "results.json"),
}
"""What a stage makes, as patterns; all else in its directory says how it was started."""
RECIPE = "recipe.yaml"
BRANCHED = "branch.json"


@dataclass(frozen=True)
class Branch:
    """branch.json: the run that this one was branched from, the last stage it shares with it, and all of them."""

    run: str
    stage: str
    stages: tuple[str, ...]


def outputs(directory: Path) -> list[Path]:
    """What a stage has made so far."""
    found = (path for pattern in MAKES[directory.name] for path in directory.glob(pattern))
    return [path for path in found if path.is_dir() or path.stat().st_size]


def write_stage_recipe(recipe: Recipe, directory: Path, notes: Sequence[str]) -> None:
    """Keep the recipe of a stage, and what else is to be known of how it ran."""
    write_text(directory / RECIPE, _comments(notes) + dump_recipe(recipe))


def notes_of(directory: Path) -> list[str]:
    """What is to be known of a run or stage besides its recipe: the comments that the file begins with."""
    lines = (read_bytes(directory / RECIPE) or b"").decode("utf-8", "replace").splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("# ")]


def write_run_recipe(recipe: Recipe, stage: str | None = None) -> None:
    """Put the run's recipe together.

    Args:
        recipe: that of the last start.
        stage: the stage it starts.
    """
    run = recipe.run.dir
    ran = stage_recipes(run) | ({stage: recipe} if stage is not None else {})
    came = read_json(run / BRANCHED, Branch) if (run / BRANCHED).exists() else None
    notes = [f"branched from {came.run} after {came.stage}"] if came is not None else []
    notes += [f"{name} has not kept its recipe" for name in ORDER if name not in ran and outputs(run / name)]
    notes += [note for name in ran for note in notes_of(run / name)]
    try:
        merged = merge(recipe, ran, came.stages if came is not None else ())
    except ConfigError:
        merged, notes = recipe, [*notes, f"the recipes of the stages do not fit into one: see STAGE/{RECIPE}"]
    write_text(run / RECIPE, _comments([*notes, *differences(merged, ran)]) + dump_recipe(merged))


def stage_recipes(run: Path) -> dict[str, Recipe]:
    """The recipe of every stage that has made something and has kept it.

    Raises:
        CheckpointError: one cannot be read.
    """
    files = {stage: run / stage / RECIPE for stage in ORDER}
    return {stage: _kept(file) for stage, file in files.items() if outputs(file.parent) and file.exists()}


def _kept(file: Path) -> Recipe:
    try:
        return load_recipe(file)
    except ConfigError as error:
        what = "the recipe that a stage of this run has kept is damaged or of another version"
        fix = f"copy {file} again; or delete it: the run's recipe then says that it is not kept"
        raise CheckpointError(what, where=str(file), got=f"{error.what} {error.got}".strip(), fix=fix) from None


def merge(last: Recipe, ran: Mapping[str, Recipe], inherited: Collection[str] = ()) -> Recipe:
    """One recipe of several.

    Args:
        last: gives what no stage has.
        ran: the recipe of each stage that has begun.
        inherited: those of them that were branched from another run: they have no say on what all share.

    Raises:
        ConfigError: together they are no valid recipe.
    """
    raw = last.model_dump(mode="json")
    told = {name: ran[name] for name in PRECEDENCE if name in ran}
    dumps = {name: recipe.model_dump(mode="json") for name, recipe in told.items()}
    own = {name: dump for name, dump in dumps.items() if name not in inherited}
    first = next(iter(own.values()), raw)
    raw["student"] = first["student"]
    raw["run"] |= {key: first["run"][key] for key in ("seed", "threads")}
    for key, users in (("teacher", TEACHER_USERS), ("environment", [n for n in ORDER if n != "align"])):
        raw[key] = next((dump[key] for name, dump in own.items() if name in users), raw[key])
    sets: dict[str, Any] = {}
    for name in ("eval", *(n for n in PRECEDENCE if n != "eval")):
        # The cold start says which traces it read, where these were made elsewhere.
        source = "sft" if name == "traces" and "traces" not in told else name
        section = dumps.get(source, raw)[name]
        if section is not None:
            raw[name] = dict(section)
        if section is not None and name != "sft":
            named, recipe = section["tasks"], told.get(source, last)
            placed = {one: _placed(one, recipe, sets, name) for one in ([named] if isinstance(named, str) else named)}
            raw[name]["tasks"] = placed[named] if isinstance(named, str) else list(placed.values())
    if "sft" in dumps and dumps["sft"]["traces"] is not None:
        raw["traces"] |= {key: dumps["sft"]["traces"][key] for key in ("keep", "max_tokens")}
    kept = {name for name, spec in last.tasks.items() if {*spec.parts.values()} <= last.tasks.keys() - sets.keys()}
    raw["tasks"] = {name: spec for name, spec in raw["tasks"].items() if name in kept} | sets
    return recipe_from(raw, where=f"recipes of the stages in {last.run.dir}")


def _placed(name: str, recipe: Recipe, sets: dict[str, Any], stage: str) -> str:
    """Put a task set among those of the run, under another name where its own is taken; returns the name."""
    spec = recipe.tasks[name].model_dump(mode="json")
    if parts := recipe.tasks[name].parts:
        spec["sources"] = {label: _placed(part, recipe, sets, stage) for label, part in parts.items()}
    while sets.setdefault(name, spec) != spec:
        name = f"{name}-{stage}"
    return name


def differences(merged: Recipe, ran: Mapping[str, Recipe]) -> list[str]:
    """What the one recipe says otherwise than a stage ran, a line each."""
    out = []
    for stage, recipe in ran.items():
        theirs, ours = settings_of(recipe, stage), settings_of(merged, stage)
        out += [f"{stage} ran with {k}: {theirs.get(k)} (see {stage}/{RECIPE})" for k in changed(theirs, ours)]
    return out


def _comments(notes: Sequence[str]) -> str:
    lines = [" ".join(note.split()) for note in dict.fromkeys(notes)]
    return "".join(f"# {line}\n" for line in lines)
