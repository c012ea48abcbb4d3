"""In which precision the models of a recipe are held, where it leaves that to their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vold.run.console import console
from vold.run.model_sections import Model
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

M = TypeVar("M", bound=Model)
WIDE = {"float32", "float64", "F32", "F64"}
"""What config.json and safetensors call the types that float32 stands for."""


def settled(recipe: Recipe) -> Recipe:
    """The recipe with a precision in place of every `dtype: auto`; the console says which."""
    if not recipe.uses_student:
        return recipe
    found: dict[str, str] = {}

    def of(name: str, spec: M) -> M:
        if spec.dtype != "auto":
            return spec
        found[name] = precision(recipe, spec.path, spec.dtype)
        return spec.model_copy(update={"dtype": found[name]})

    update: dict[str, object] = {"student": of("student", recipe.learner)}
    if (teacher := recipe.teacher) is not None:
        routes = {name: of(f"teacher for {name}", one) for name, one in teacher.routes.items()}
        update["teacher"] = of("teacher", teacher).model_copy(update={"routes": routes})
    if not found:
        return recipe
    console.print(f"dtype auto: {', '.join(f'{name} in {dtype}' for name, dtype in found.items())}")
    return recipe.model_copy(update=update)


def precision(recipe: Recipe, path: str, dtype: str) -> str:
    """What `dtype` of a recipe means for the model at a path: with `auto` its checkpoint's own on a GPU, and float32 on
    a CPU."""
    if dtype != "auto":
        return dtype
    import torch  # `vold --help` waits for it otherwise

    elsewhere = recipe.cluster is not None and recipe.cluster.gpus > 0
    if recipe.run.device == "cpu" or (recipe.run.device == "auto" and not (elsewhere or torch.cuda.is_available())):
        return "float32"
    return checkpoint_dtype(resolve(path))


def checkpoint_dtype(path: str) -> str:
    """The precision of a model directory or hub id: `float32`, or `bfloat16` for all that is smaller, as the loss would
    have to be scaled for training in float16. What config.json does not say the weights of a directory do; float32
    where nothing can be read: loading the model then says why."""
    from safetensors import safe_open
    from transformers.utils.hub import cached_file

    kinds: set[str] = set()
    try:
        config: dict[str, Any] = json.loads(Path(str(cached_file(path, "config.json"))).read_bytes())
        sections = (config, config.get("text_config") or {})
        said = [s[key] for s in sections for key in ("dtype", "torch_dtype") if s.get(key)]
        kinds |= {str(kind) for kind in said[:1]}
        for file in Path(path).glob("*.safetensors") if not said else ():
            with safe_open(file, "pt") as weights:
                names = weights.keys()
                kinds |= {weights.get_slice(name).get_dtype() for name in names}
    except Exception:  # files may hold anything
        return "float32"
    return "float32" if kinds <= WIDE else "bfloat16"
