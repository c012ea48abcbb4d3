"""Recipes: reading, overriding, and the message each mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import tiny
from vold.errors import ConfigError
from vold.run.mistakes import models_in
from vold.run.recipe import Recipe, dump_recipe, load_recipe
from vold.run.task_sections import TaskSpec, task_kinds, task_source

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def test_the_demo_recipe_is_valid_and_survives_a_round_trip(tmp_path: Path) -> None:
    recipe = load_recipe(DEMO)
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_an_overridden_objective_survives_a_round_trip(tmp_path: Path) -> None:
    overrides = ["distill.objective.teacher_loss.mask=none", "distill.objective.teacher_loss.coefficient=0.25"]
    recipe = load_recipe(DEMO, overrides)
    assert recipe.distill is not None
    assert recipe.distill.objective.teacher_loss is not None
    assert recipe.distill.objective.teacher_loss.coefficient == 0.25
    assert recipe.distill.objective.surrogate is not None
    assert (recipe.distill.objective.surrogate.clip_low, recipe.distill.objective.surrogate.clip_high) == (0.2, 0.3)
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_overrides_are_yaml_values_at_dotted_keys() -> None:
    recipe = load_recipe(DEMO, ["run.dir=/tmp/elsewhere", "sft.optimizer.lr=3e-4", "student.freeze=[vision]"])
    assert recipe.run.dir == Path("/tmp/elsewhere")
    assert recipe.sft is not None
    assert recipe.sft.optimizer.lr == 3e-4
    assert recipe.learner.freeze == ("vision",)


@pytest.mark.parametrize(
    ("override", "what", "where", "fix"),
    [
        ("sft.optimizer.lrr=1", "unknown key 'lrr'", "sft.optimizer.lrr", "did you mean 'lr'?"),
        ("distil.steps=1", "unknown key 'distil'", "distil", "did you mean 'distill'?"),
        ("tasks.train.splitt=train", "unknown key 'splitt'", "tasks.train.splitt", "did you mean 'split'?"),
        ("distill.objective.teacher_loss.beta=1", "unknown key 'beta'", "teacher_loss.beta", "known keys here"),
        ("sft.steps=many", "whole number", "sft.steps", "a whole number above 0"),
        ("sft.steps=0", "greater than 0", "sft.steps", "0"),
        ("tasks.train.kind=parquet", "unknown kind", "tasks.train", "digits"),
        ("distill.objective.method=vould", "vold", "distill.objective.method", "vould"),
        ("distill.objective.teacher_loss.estimator=k1", "k1", "distill.objective.teacher_loss.estimator", "k2"),
        ("distill.sampling.temperature=0", "greedy rollouts", "distill.sampling.temperature", "above 0"),
        ("student.quantize=nf4", "can not be trained", "student", "add lora"),
        ("student.quantize=nf8", "nf8", "student.quantize", "nf4"),
        ("teacher={path: t, quantize: nf4, server: {urls: ['http://h/v1'], model: m}}", "a server", "teacher", "drop"),
        ("teacher.quantize_error.limit=0", "greater than 0", "teacher.quantize_error.limit", "0"),
        ("teacher=null", "need a teacher", "command line: teacher", "add `teacher: {path: ...}`"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_cure(override: str, what: str, where: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(DEMO, [override])
    text = str(caught.value)
    assert what in text
    assert where in text
    assert fix in text
    assert "pydantic" not in text


@pytest.mark.parametrize("item", ["sft.steps", "=3", "run.dir.x=1", "sft.steps=[1"])
def test_an_override_that_is_no_assignment_is_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="command line"):
        load_recipe(DEMO, [item])


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "broken.yaml").write_text("run: {dir: [\n")
    for name, what in (("list.yaml", "mapping"), ("broken.yaml", "not valid YAML"), ("absent.yaml", "cannot read")):
        with pytest.raises(ConfigError, match=what):
            load_recipe(tmp_path / name)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key can hold; a task set can be of any source."""
    return [m for one in models_in(annotation) for m in (map(task_source, task_kinds()) if one is TaskSpec else [one])]


def _keys(model: type, prefix: str = "") -> set[str]:
    out = set()
    for name, info in model.model_fields.items():  # type: ignore[attr-defined]
        inner = sections_in(info.annotation)
        out |= {f"{prefix}{name}"} if not inner else {k for m in inner for k in _keys(m, f"{prefix}{name}.")}
    return out


def test_the_set_of_recipe_keys_is_the_one_written_down() -> None:
    """Adding a key means adding it to tests/run/recipe_keys.txt in the same commit."""
    frozen = (Path(__file__).with_name("recipe_keys.txt")).read_text().split()
    assert sorted(_keys(Recipe)) == frozen


def test_every_recipe_key_is_documented() -> None:
    def undocumented(model: type, prefix: str = "") -> list[str]:
        out = []
        for name, info in model.model_fields.items():  # type: ignore[attr-defined]
            inner = sections_in(info.annotation)
            if not info.description and not inner:
                out.append(prefix + name)
            out += [u for m in inner for u in undocumented(m, f"{prefix}{name}.")]
        return out

    assert undocumented(Recipe) == []


def test_every_recipe_in_the_tree_is_valid() -> None:
    files = sorted(DEMO.parent.glob("*.yaml"))
    assert files
    for file in files:
        assert yaml.safe_load(file.read_text())
        load_recipe(file)


def test_tiny_recipes_are_valid(tmp_path: Path) -> None:
    assert tiny.recipe(tmp_path).run.seed == 5


def test_a_method_named_on_the_command_line_does_not_keep_the_parts_of_another() -> None:
    grpo = load_recipe(DEMO, ["distill.objective.method=grpo"]).distill
    assert grpo is not None
    assert grpo.objective.teacher_loss is None
    kdrl = load_recipe(DEMO, ["distill.objective.teacher_loss.mask=failed", "distill.objective.method=kdrl"]).distill
    assert kdrl is not None
    assert kdrl.objective.teacher_loss is not None
    # KDRL's own coefficient, not the file's for VOLD; the mask was given beside the method and counts.
    assert kdrl.objective.teacher_loss.coefficient == 5e-3
    assert kdrl.objective.teacher_loss.mask == "failed"


def test_the_method_that_the_file_has_already_changes_nothing() -> None:
    assert load_recipe(DEMO, ["distill.objective.method=vold"]) == load_recipe(DEMO)


def test_an_override_of_what_yaml_has_put_into_two_places_changes_one(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    raw = yaml.safe_load(DEMO.read_text())
    raw["align"]["sampling"] = raw["distill"]["sampling"]  # written once, and named twice
    file.write_text(yaml.safe_dump(raw))
    assert "*id001" in file.read_text()
    recipe = load_recipe(file, ["distill.sampling.max_new_tokens=7"])
    assert recipe.distill is not None and recipe.align is not None
    assert recipe.distill.sampling.max_new_tokens == 7
    assert recipe.align.sampling is not None
    assert recipe.align.sampling.max_new_tokens == raw["align"]["sampling"]["max_new_tokens"] != 7


def test_student_and_teacher_are_compared_next_only_where_stage_2_asks_the_teacher(tmp_path: Path) -> None:
    vold, grpo = (
        tiny.recipe(tmp_path, distill={"objective": {"method": method}}).model_copy(update={"align": None})
        for method in ("vold", "grpo")
    )
    assert (vold.after("sft"), vold.method) == ("align", "vold")
    assert (grpo.after("sft"), grpo.method) == ("distill", "grpo")
