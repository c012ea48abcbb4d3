"""What is asked of a student while it trains (`sft.eval`, `distill.eval`): a few questions of each set, marked by
rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vold.errors import ConfigError
from vold.evals.questions import open_sets
from vold.run.looks import asked_while_training
from vold.run.recipe import Eval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.evals.questions import QuestionSet
    from vold.run.model_sections import Sampling
    from vold.run.recipe import Recipe
    from vold.run.stage_sections import WhileTraining


@dataclass(frozen=True)
class Watched:
    """Sets of questions, and how they are asked."""

    sets: Sequence[QuestionSet]
    sampling: Sampling
    batch_size: int


def watched(recipe: Recipe, stage: Literal["sft", "distill"], section: WhileTraining) -> Watched:
    """Open the sets that a stage is evaluated on while it trains.

    Raises:
        ConfigError: a set that a judge marks.
        DataError: data that cannot be read, or a set of fewer than two problems.
    """
    sampling, batch_size = asked_while_training(recipe, section)
    known = recipe.eval.benchmarks if recipe.eval is not None else {}
    benchmarks = {name: known[name] for name in section.sets if name in known}
    for name, one in benchmarks.items():
        if one.protocol != "rule":
            raise ConfigError(
                "while a model trains no judge marks its answers",
                where=f"{stage}.eval.sets",
                got=f"{name}, of protocol {one.protocol}",
                fix=f"add a second benchmark to eval.benchmarks: {{{name}_rule: {{name: {one.name or name}}}}}",
            )
    limited = {name: one.model_copy(update={"limit": section.size}) for name, one in benchmarks.items()}
    tasks = tuple(name for name in section.sets if name not in known)
    config = Eval(tasks=tasks, benchmarks=limited, sampling=sampling, batch_size=batch_size)
    tool = "none" if recipe.environment is None else recipe.environment.words()
    opened = {s.name: s for s in open_sets(config, recipe.tasks, tool=tool)}
    first = [replace(opened[name], questions=opened[name].questions[: section.size]) for name in section.sets]
    return Watched(first, sampling, batch_size)
