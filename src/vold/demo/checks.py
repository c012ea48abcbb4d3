"""What is wrong with an arm of a study, said before anything is trained: its own turn may come after hours."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vold.data.sources import open_tasks
from vold.demo.study_file import no_such
from vold.demo.units import Unit
from vold.errors import ConfigError, VoldError
from vold.run.mistakes import no_section

if TYPE_CHECKING:
    from vold.demo.study import Running
    from vold.run.recipe import Recipe


def check_arms(running: Running) -> None:
    """Read the recipe of every arm, with its first rate and seed, on the selection and on the test tasks.

    Raises:
        ConfigError: an arm sets a key that is unknown or mistyped, or has a stage that the recipe lacks; or a claim or
            a column is about a kind of problems that no arm is asked.
    """
    recipes = [_recipe(running, name, test=test) for name in running.study.arms for test in (False, True)]
    asked = {measure: where for measure, where in running.study.asked() if "/" in measure}
    _refuse_other_kinds(running, asked, recipes[1::2])


def _recipe(running: Running, name: str, *, test: bool) -> Recipe:
    study, arm = running.study, running.study.arms[name]
    rate = arm.rates[0] if arm.rates else None
    unit = Unit(name, rate, study.seeds[0], "test") if test else Unit(name, rate, study.select_seeds[0], "select")
    try:
        recipe = running.alone(unit).load({})
        for stage in ("eval", *(("traces",) if arm.stage == "sft" else ()), *([arm.stage] if arm.stage else ())):
            if getattr(recipe, stage) is None:
                raise no_section(recipe, stage)
    except ConfigError as error:
        where = f"{running.path}: arms.{name}: {error.where.removeprefix('command line: ')}"
        raise ConfigError(error.what, where=where, got=error.got, fix=error.fix) from None
    return recipe


def _refuse_other_kinds(running: Running, asked: Mapping[str, str], recipes: Sequence[Recipe]) -> None:
    """Refuse SET/KIND where no arm's test set has problems of that kind."""
    for measure, where in asked.items():
        name, _, kind = measure.partition("/")
        sets = {recipe.tasks[name].model_dump_json(): recipe for recipe in recipes if name in recipe.tasks}
        known = set[str]().union(*(_kinds(recipe, name) for recipe in sets.values()))
        if known and kind not in known:
            raise no_such(f"kind of problem in {name}", kind, sorted(known), f"{running.path}: {where}")


def _kinds(recipe: Recipe, name: str) -> set[str]:
    """Of the problems of a task set; none of one that cannot be read here, as in a clone whose units are all done."""
    with contextlib.suppress(VoldError):
        return {task.tags["kind"] for task in open_tasks(recipe.tasks, name, references=False) if "kind" in task.tags}
    return set()
