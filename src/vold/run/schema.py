"""The JSON schema of a recipe, by which editors complete keys and mark mistakes while a recipe is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vold.objective import PRESETS, Objective
from vold.run.mistakes import models_in
from vold.run.recipe import Align, Recipe, align_defaults
from vold.run.task_sections import task_kinds, task_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel


def recipe_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of what `load_recipe` reads, but for checks between keys.

    A task set is described by its source; one with a source of the user's own (`kind: my_module:MySpec`) is let pass.
    """
    schema = Recipe.model_json_schema(mode="validation")
    shared = schema["$defs"]
    branches: list[dict[str, Any]] = []
    for kind in task_kinds():
        source = task_source(kind).model_json_schema(mode="validation")
        shared |= source.pop("$defs", {})
        source["properties"]["kind"] = {"const": kind, "description": source.get("description", "")}
        shared[f"tasks.{kind}"] = source
        branches.append({"$ref": f"#/$defs/tasks.{kind}"})
    own = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
    shared["TaskSpec"] = {"anyOf": [*branches, own]}
    presets = [terms for p in PRESETS.values() for terms in (p.terms, *(v.terms for v in p.variants.values()))]
    _need_not(shared, Objective, presets)
    _need_not(shared, Align, [align_defaults(Align.model_fields, {})])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "A recipe of vold"}


def _need_not(shared: Mapping[str, Any], section: type[BaseModel], filled: Sequence[Mapping[str, Any]]) -> None:
    """Keys that a section gets from elsewhere, in any of the ways in which it is filled, need not be written in it."""
    described = shared[section.__name__]
    described["required"] = [k for k in described.get("required", ()) if not any(k in way for way in filled)]
    for key, info in section.model_fields.items():
        inner = [way[key] for way in filled if isinstance(way.get(key), dict)]
        for model in models_in(info.annotation):
            _need_not(shared, model, inner)
