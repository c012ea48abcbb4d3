"""docs/gallery.md from the recipes: what each says of itself, what it needs, and what it was measured or planned at."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.recipes import method_commands
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.data.hf_datasets import PublishedSet
from vold.model.cards import highest
from vold.model.footprint import footprint
from vold.model.memory import inprocess_teachers, plan
from vold.model.pace import H200, at, sizes_of
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from vold.run.model_sections import Launch
    from vold.run.recipe import Recipe

ROOT = Path(__file__).parents[2]
FILES = {file.stem: file for file in sorted((ROOT / "recipes").glob("*.yaml"))}
MEASURED: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "recipes.json").read_text())
"""What `python benchmarks/recipes.py` has found."""
PUBLISHED = {"Qwen/Qwen2.5-VL-3B-Instruct": QWEN2_5_VL_3B, "Qwen/Qwen3-8B": QWEN3_8B}
STUDENTS_GPUS = {"qwen2_5_vl-3b-8gpu": 4}
"""GPUs that train the student, where it is not one: `--nproc-per-node` of the recipe's commands."""


def page() -> str:
    """Three tables, a section for every recipe, and the commands of methods in miniature."""
    recipes = {name: load_recipe(file) for name, file in FILES.items()}
    large = [name for name, recipe in recipes.items() if recipe.student and recipe.student.path in PUBLISHED]
    rows = ["| recipe | seconds of a processor | memory, MiB | accuracy, % |", "|---|---|---|---|"]
    for name, recipe in recipes.items():
        if name not in large:
            rows.append(f"| [{name}](#{name}) | {_cost(name)} | {_went(MEASURED.get(name), recipe)} |")
    rows += ["", "| method | seconds of a processor | memory, MiB | reward |", "|---|---|---|---|"]
    for name in method_commands():
        found = MEASURED.get(name)
        went = " → ".join(f"{value:.2f}" for value in found["reward"]) if found else "-"
        rows.append(f"| [{name}](#methods-in-miniature) | {_cost(name)} | {went} |")
    rows += ["", "| recipe | GPUs | GiB of one, planned | hours of stage 2 |", "|---|---|---|---|"]
    for name in large:
        recipe, gpus = recipes[name], STUDENTS_GPUS.get(name, 1)
        models = [PUBLISHED[m.path] for m in (recipe.learner, *inprocess_teachers(recipe))]
        phases = plan(recipe, *models, devices=gpus)
        most = highest(phases).total / 2**30
        hours = _hours(recipe, gpus, sum(phase.moved for phase in phases))
        rows.append(f"| [{name}](#{name}) | {_gpus(recipe, gpus)} | {most:.1f} | {hours} |")
    sections = [f"## {name}\n\n{about(name)}\n\n{_needs(recipe)}" for name, recipe in recipes.items()]
    commands = [line for lines in method_commands().values() for line in lines]
    methods = "\n".join(["## Methods in miniature", "", "```", *commands, "```"])
    return "\n\n".join(["\n".join(rows), *sections, methods])


def _cost(name: str) -> str:
    """Seconds of a processor and memory, as two cells."""
    found = MEASURED.get(name)
    return f"{found['cpu_seconds']:,} | {found['peak_mib']:,}" if found else "- | -"


def about(name: str) -> str:
    """The comment that a recipe begins with: its words as a paragraph, its commands as they are."""
    blocks: list[tuple[bool, list[str]]] = []
    for line in itertools.takewhile(lambda line: line.startswith("#"), FILES[name].read_text().splitlines()):
        command = line.startswith("#   ")
        if not blocks or blocks[-1][0] != command:
            blocks.append((command, []))
        blocks[-1][1].append(line.strip("# "))
    return "\n\n".join("```\n" + "\n".join(b) + "\n```" if command else "\n".join(b) for command, b in blocks)


def _went(found: dict[str, Any] | None, recipe: Recipe) -> str:
    """Accuracy of each model on each task set, with its 95% interval. Benchmarks in miniature mean nothing."""
    if found is None or recipe.eval is None:
        return "-"
    shown = []
    for name in recipe.eval.tasks:
        models = [f"{100 * sets[name][0]:.0f} ± {196 * sets[name][1]:.0f}" for sets in found["accuracy"].values()]
        shown.append(f"{name}: {' → '.join(models)}")
    return "<br>".join(shown) or "-"


def _servers(recipe: Recipe) -> list[Launch]:
    """What starts servers."""
    stage, test = recipe.distill, recipe.eval
    held = [*(t.server for t in recipe.text_teachers), stage.engine if stage else None, test.endpoint if test else None]
    return [server.launch for server in held if server is not None and server.launch is not None]


def _gpus(recipe: Recipe, students: int) -> int:
    """Of the student and of all servers."""
    return len({gpu for launch in _servers(recipe) for gpu in launch.devices} | set(range(students)))


def _hours(recipe: Recipe, gpus: int, moved: int) -> str:
    """Of stage 2, with every response as long as it may be."""
    d, teachers = recipe.distill, inprocess_teachers(recipe)
    if d is None:
        return "-"
    student = footprint(PUBLISHED[recipe.learner.path], recipe.learner.dtype, recipe.learner)
    teacher = footprint(PUBLISHED[teachers[0].path], teachers[0].dtype) if teachers else None
    sizes = sizes_of(recipe, student, teacher)
    found = at(H200, sizes, gpus, 1, in_process=d.engine is None, moved=moved)
    phases = ("rollouts", "teacher", "update, products", "update, exchange", "copies")
    return f"{sum(found[p] for p in phases) * d.steps / 3600:.1f}"


def _needs(recipe: Recipe) -> str:
    """What has to be there besides the package, in a sentence."""
    teachers, stage, test = recipe.text_teachers, recipe.distill, recipe.eval
    models = [m.path for m in (recipe.student, *teachers) if m is not None]
    models += [stage.init] if stage is not None and stage.init is not None else []
    hub = [m for m in models if "/" in m and not (ROOT / m).exists() and not m.startswith(("runs/", "models/"))]
    sets = [str(s.kind) for s in recipe.tasks.values() if isinstance(s, PublishedSet) and s.path is None]
    sets += [name for name, b in (test.benchmarks if test is not None else {}).items() if b.path is None]
    needs = [f"the models {' and '.join(f'`{m}`' for m in dict.fromkeys(hub))}"] if hub else []
    needs += [f"the data sets {', '.join(f'`{s}`' for s in dict.fromkeys(sets))}"] if sets else []
    needs += ["vLLM"] if _servers(recipe) else []
    needs += ["a judge's key"] if test is not None and test.judge is not None else []
    needs += ["`make smollm2`, which brings its models"] if any(m.startswith("models/") for m in models) else []
    needs += ["a finished `runs/demo`"] if any(m.startswith("runs/demo") for m in models) else []
    return f"Needs: {', '.join(needs) or 'nothing but the package'}."
