"""The JSON schema of a recipe, by which editors complete keys and mark mistakes while a recipe is written."""

from __future__ import annotations

from typing import Any

from vold.run.recipe import Recipe
from vold.run.task_sections import task_kinds, task_source


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
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A recipe of vold"} | schema
