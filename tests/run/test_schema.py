"""The schema of recipes lets all recipes of the package through and marks what `load_recipe` refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from vold.run.schema import recipe_schema
from vold.run.shipped import shipped_recipes
from vold.run.task_sections import task_kinds

RECIPES = {name: yaml.safe_load(file.read_text()) for name, file in shipped_recipes().items()}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def mistakes(validator: Draft202012Validator, recipe: dict[str, Any]) -> list[str]:
    return [".".join(map(str, e.absolute_path)) for e in validator.iter_errors(recipe)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_the_package_are_let_through(name: str, validator: Draft202012Validator) -> None:
    assert mistakes(validator, RECIPES[name]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sft.stepz", 3),
        ("sft.steps", "many"),
        ("run.device", "gpu"),
        ("distill.objective.method", "voldd"),
        ("distill.rollouts", 0),
        ("tasks.train", {"kind": "digitz"}),
        ("tasks.train.sizes", 3),
    ],
)
def test_mistakes_are_marked_where_they_are(path: str, value: object, validator: Draft202012Validator) -> None:
    recipe = yaml.safe_load(shipped_recipes()["demo"].read_text())
    *sections, key = path.split(".")
    inner = recipe
    for section in sections:
        inner = inner[section]
    inner[key] = value
    (found,) = mistakes(validator, recipe)
    assert path.startswith(found) and found


def test_a_source_of_ones_own_is_let_through(validator: Draft202012Validator) -> None:
    recipe = yaml.safe_load(shipped_recipes()["demo"].read_text())
    recipe["tasks"]["train"] = {"kind": "my_module:Mine", "anything": 3}
    assert mistakes(validator, recipe) == []


def test_every_source_and_key_has_words() -> None:
    schema = recipe_schema()
    for kind in task_kinds():
        assert schema["$defs"][f"tasks.{kind}"]["description"]
    wordless = [
        f"{name}.{key}"
        for name, section in schema["$defs"].items()
        for key, one in section.get("properties", {}).items()
        if not one.get("description")
    ]
    assert wordless == []
