"""The schema of recipes lets all recipes of the package through and marks what `load_recipe` refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from vold.errors import ConfigError
from vold.run.overrides import override
from vold.run.recipe import load_recipe
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


def demo_with(change: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(shipped_recipes()["demo"].read_text())
    override(recipe, change)
    return recipe


@pytest.mark.parametrize(
    "change",
    [
        "align={}",
        "align={rollouts: 2}",
        "align={self_check: true}",
        "align={tasks: overlap}",
        "align={sampling: {max_new_tokens: 8}}",
        "align=null",
        "balance={tasks: train, sampling: {max_new_tokens: 8}}",
        "distill={tasks: train, sampling: {max_new_tokens: 8}, optimizer: {lr: 0.1}}",
        "distill.objective={}",
        "distill.objective={teacher_loss: null}",
        "distill.objective={method: dapo, outcome: {overlong: {factor: 0.5}}}",
        "distill.objective={method: sod, outcome: {overlong: {factor: 0.5}}}",
        "distill.objective={method: gkd, reading: top_k, teacher_loss: {top_k: {form: renormalise}}}",
        "distill.objective={method: null, surrogate: {}, outcome: {overlong: {buffer: 0.2}}}",
        "distill.objective={method: grpo, reference: {coefficient: 0.1}, entropy: {coefficient: 0.1}}",
        "distill.mismatch={}",
        "distill.updates={epochs: 2}",
        "distill.eval={every: 10, sets: [image]}",
        "sft={steps: 3, optimizer: {lr: 1}}",
        "student.lora={}",
        "teacher.server={launch: {devices: [0, [1, 2]]}}",
        "eval={tasks: [image], sampling: {max_new_tokens: 8}}",
        "environment={}",
    ],
)
def test_what_loads_with_keys_left_out_is_let_through(change: str, validator: Draft202012Validator) -> None:
    load_recipe("demo", [change])
    assert mistakes(validator, demo_with(change)) == []


@pytest.mark.parametrize(
    "change",
    [
        "run={}",
        "align={rollouts: 0}",
        "align={sampling: {temperature: 1}}",
        "sft={steps: 3}",
        "distill={steps: 3}",
        "balance={tasks: train}",
        "distill.eval={every: 10}",
        "distill.objective={method: grpo, reference: {estimator: k3}}",
        "distill.objective={method: grpo, entropy: {}}",
        "distill.objective={own_loss: {coefficient: 1}}",
        "distill.objective={method: dapo, outcome: {overlong: {factor: 0}}}",
        "teacher.student={rate: 0.1}",
        "cluster={nodes: 2}",
    ],
)
def test_what_lacks_a_key_that_nothing_fills_is_marked(change: str, validator: Draft202012Validator) -> None:
    with pytest.raises(ConfigError):
        load_recipe("demo", [change])
    (found,) = mistakes(validator, demo_with(change))
    assert change.startswith(found) and found


def test_an_editor_shows_whose_schema_it_is() -> None:
    assert recipe_schema()["title"] == "A recipe of vold"


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
