"""Task sets: named once, referred to by name, and known to the stages that use them by what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from vold.errors import ConfigError
from vold.run.directory import open_stage
from vold.run.recipe import Recipe, load_recipe, recipe_from

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def refused(*overrides: str, recipe: Path = DEMO) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, overrides)
    return caught.value


@pytest.mark.parametrize(
    ("overrides", "where", "got", "fix"),
    [
        (["distill.tasks=trian"], "distill.tasks", "trian", "did you mean 'train'?"),
        (["eval.tasks=[image, txet]"], "eval.tasks", "txet", "did you mean 'text'?"),
        (
            ["align.tasks=nothing-like-it"],
            "align.tasks",
            "nothing-like-it",
            "task sets of this recipe: cold_start, overlap, train, image, text",
        ),
        (
            ["tasks.mixed={kind: mixture, sources: {a: image, b: txet}}"],
            "tasks.mixed.sources.b",
            "txet",
            "did you mean 'text'?",
        ),
    ],
)
def test_a_name_that_no_set_has_is_refused(overrides: list[str], where: str, got: str, fix: str) -> None:
    error = refused(*overrides)
    assert (error.what, error.got, error.fix) == ("no task set has this name", got, fix)
    assert error.where == f"command line: {where}"


def test_a_mixture_is_made_of_sets_that_are_none() -> None:
    error = refused(
        "tasks.a={kind: mixture, sources: {x: image}}",
        "tasks.b={kind: mixture, sources: {x: a}}",
    )
    assert error.what == "a mixture has no mixture among its sources"
    assert error.where == "command line: tasks.b.sources.x"
    assert error.fix == "name its sources here: image"


def test_an_evaluation_names_a_set_once() -> None:
    assert "named twice: text, text" in refused("eval.tasks=[text, text]").what


@pytest.mark.parametrize(
    ("override", "where", "got", "fix"),
    [
        (
            "distill.tasks={kind: jsonl, path: x.jsonl}",
            "command line: distill.tasks",
            "{kind: jsonl, ...}",
            "tasks.distill={kind: jsonl, ...} distill.tasks=distill",
        ),
        (
            "eval.tasks={hard: {kind: digits, split: test, size: 9}}",
            "command line: eval.tasks",
            "{hard: {...}}",
            "tasks.hard={kind: digits, ...} eval.tasks=[hard]",
        ),
        (
            "distill.tasks.size=5",
            "command line: distill.tasks.size",
            "distill.tasks.size=5",
            "tasks.train.size=5",
        ),
        (
            "eval.tasks.image.size=5",
            "command line: eval.tasks.image.size",
            "eval.tasks.image.size=5",
            "tasks.image.size=5",
        ),
        (
            "balance.tasks.size=5",
            "command line: balance.tasks.size=5",
            "{size: 5}",
            "tasks.balance={size: 5} balance.tasks=balance",
        ),
    ],
)
def test_a_set_spelled_out_in_a_stage_is_refused_with_its_new_place(
    override: str, where: str, got: str, fix: str
) -> None:
    error = refused(override)
    assert "in the recipe's `tasks`" in error.what
    assert (error.where, error.got, error.fix) == (where, got, fix)


def test_what_the_message_says_to_write_is_taken(tmp_path: Path) -> None:
    raw = yaml.safe_load(DEMO.read_text())
    raw["distill"]["tasks"] = raw["tasks"].pop("train")
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(raw))
    assert refused(recipe=tmp_path / "old.yaml").fix.startswith("tasks.distill={kind: digits, ...} ")
    raw["tasks"]["distill"] = raw["distill"]["tasks"]
    raw["distill"]["tasks"] = "distill"
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(raw))
    found = load_recipe(tmp_path / "new.yaml")
    assert found.tasks["distill"] == load_recipe(DEMO).tasks["train"]


def recipe(home: Path, *, tasks: dict[str, Any], use: dict[str, str], test: list[str]) -> Recipe:
    raw = tiny.recipe_dict(home)
    raw["tasks"] = tasks
    for stage in ("traces", "align", "distill"):
        raw[stage]["tasks"] = use[stage]
    raw["eval"]["tasks"] = test
    return recipe_from(raw, where="test recipe")


STAGES = ("traces", "sft", "align", "distill", "eval")
USE = {"traces": "train", "align": "both", "distill": "train"}


def tasks(**seeds: int) -> dict[str, Any]:
    digits = {"kind": "digits", "split": "train", "size": 5}
    sets: dict[str, Any] = {n: digits | {"seed": seeds.get(n, 0)} for n in ("train", "more", "test", "spare")}
    return sets | {"both": {"kind": "mixture", "sources": {"a": "more", "b": "spare"}}}


@pytest.mark.parametrize(
    ("changed", "noticed"),
    [
        ("train", {"traces", "sft", "distill"}),
        ("more", {"align"}),
        ("test", {"eval"}),
        ("spare", {"align"}),
        ("nothing", set()),
    ],
)
def test_a_changed_set_is_noticed_by_the_stages_that_use_it(changed: str, noticed: set[str], tmp_path: Path) -> None:
    first = recipe(tmp_path, tasks=tasks(), use=USE, test=["test"])
    then = recipe(tmp_path, tasks=tasks(**{changed: 7}), use=USE, test=["test"])
    found = set()
    for stage in STAGES:
        tiny.begun(first, stage)
        try:
            open_stage(then, stage)
        except ConfigError as error:
            assert "seed: 0 before, 7 now" in error.got
            found.add(stage)
    assert found == noticed


def test_a_set_under_another_name_is_the_same_set(tmp_path: Path) -> None:
    first = recipe(tmp_path, tasks=tasks(), use=USE, test=["test"])
    renamed = {"again" if name == "train" else name: spec for name, spec in tasks().items()}
    then = recipe(tmp_path, tasks=renamed, use=USE | {"traces": "again", "distill": "again"}, test=["test"])
    for stage in STAGES:
        tiny.begun(first, stage)
        open_stage(then, stage)
    stored = json.loads((tmp_path / "run" / "distill" / "settings.json").read_text())
    assert stored["distill.tasks.kind"] == "digits"
    stored = json.loads((tmp_path / "run" / "align" / "settings.json").read_text())
    assert stored["align.tasks.sources.a.size"] == 5


def test_an_evaluation_may_gain_and_lose_whole_sets(tmp_path: Path) -> None:
    tiny.begun(recipe(tmp_path, tasks=tasks(), use=USE, test=["test", "more"]), "eval")
    open_stage(recipe(tmp_path, tasks=tasks(), use=USE, test=["spare", "more"]), "eval")
    with pytest.raises(ConfigError, match=r"eval\.tasks\.more\.seed: 0 before, 1 now"):
        open_stage(recipe(tmp_path, tasks=tasks(more=1), use=USE, test=["more"]), "eval")
