"""Keys of a recipe that do not go together, or not with several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vold.errors import ConfigError

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

Trained = Literal["sft", "distill"]


def refuse_together(recipe: Recipe, world: int, *stages: Trained) -> None:
    """Refuse what training stages cannot do with each other, or in so many processes.

    Raises:
        ConfigError: the first such thing.
    """
    sections = {name: section for name in stages if (section := getattr(recipe, name)) is not None}
    offloads = "distill" in sections and recipe.run.offload
    if offloads and any(t.quantize == "int8" for t in recipe.scoring_models):
        raise ConfigError(
            "weights in int8 can not leave the device between phases",
            where="run.offload",
            got="true with teacher.quantize: int8",
            fix="set teacher.quantize=nf4, which is smaller, or run.offload=false",
        )
    if world == 1 or not sections:
        return
    if offloads:
        raise ConfigError(
            "only one process can offload",
            where="run.offload",
            got=f"{world} processes",
            fix="drop it: several processes divide the optimizer's state among them",
        )
    if recipe.learner.quantize is not None:
        raise ConfigError(
            "a quantised student is trained in one process",
            where="student.quantize",
            got=f"{world} processes",
            fix="drop torchrun, or quantize",
        )
    if "distill" in sections and recipe.taught_by_itself is not None:
        raise ConfigError(
            "a student that teaches itself as it changes is trained in one process",
            where="teacher.student.weights",
            got=f"{world} processes",
            fix="drop torchrun, or set teacher.student.weights=start",
        )
    for name, section in sections.items():
        if section.optimizer.moments is not None:
            raise ConfigError(
                "moments in 8 bits are of whole tensors, and several processes hold parts of them",
                where=f"{name}.optimizer.moments",
                got=f"{world} processes",
                fix="drop it: several processes divide the moments among them; or drop torchrun",
            )
