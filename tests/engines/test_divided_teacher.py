"""A teacher that two processes divide says what a whole one does, however unequally they ask it; when it is divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import loaded
import shared_teacher
import tiny
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.errors import ConfigError
from vold.model.certified import WHOLE
from vold.model.memory import divides_teachers, plan
from vold.model.parallel import Processes
from vold.run.recipe import Recipe, load_recipe, recipe_from
from vold.training.scoring import refuse_uneven

PAPER = Path(__file__).parents[2] / "recipes" / "qwen2_5_vl-3b.yaml"
GIB = 2**30


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("divided")
    raw = tiny.recipe_dict(home)
    raw["run"]["shard_teacher"] = "always"
    (home / "recipe.yaml").write_text(yaml.safe_dump(raw))
    done = loaded.run(shared_teacher.__file__, str(home))
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("probe", (1, 1)),
        ("uneven", (5, 1)),
        ("one has none", (4, 0)),
        ("nobody has any", (0, 0)),
        ("cached", (2, 2)),
        ("routed", (3, 3)),
    ],
)
def test_a_divided_teacher_says_what_a_whole_one_does(name: str, rows: tuple[int, int], found: dict[str, Any]) -> None:
    for (divided, whole), count in zip(found[name], rows, strict=True):
        assert len(divided) == len(whole) == count
        for ours, theirs in zip(divided, whole, strict=True):
            for mine, right in zip(ours, theirs, strict=True):
                assert (mine is None) == (right is None)
                if right is not None:
                    np.testing.assert_allclose(np.array(mine), np.array(right), rtol=0, atol=1e-6)


@pytest.mark.processes
def test_whole_distributions_come_while_another_process_asks_for_nothing(found: dict[str, Any]) -> None:
    first, second = found["distributions"]
    divided, whole = map(np.array, first)
    np.testing.assert_allclose(divided, whole, rtol=0, atol=1e-5)
    assert second == [None, None]


@pytest.mark.processes
def test_it_is_certified_as_a_whole_one_is(found: dict[str, Any]) -> None:
    first, second = found["certificate"]
    assert first == second
    assert first.keys() >= WHOLE and not any(first.values())


@pytest.mark.processes
def test_each_process_holds_its_half(found: dict[str, Any]) -> None:
    held, whole = zip(*found["held"], strict=True)
    assert len({*whole}) == 1
    assert sum(held) == whole[0]
    assert max(held) < 0.6 * whole[0]


def paper(*words: str) -> Recipe:
    return load_recipe(PAPER, ["run.offload=false", "teacher.server=null", "distill.engine=null", *words])


def test_it_is_divided_where_a_whole_one_does_not_fit_beside_what_else_is_there() -> None:
    recipe = paper()
    whole, divided = (
        {p.name: p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=8, divided=d)} for d in (None, "node")
    )
    weights = 2 * 8_190_735_360  # bfloat16 parameters of the published 8B model
    for name in ("rollouts", "teacher scoring", "update"):
        assert whole[name].parts["teacher"] == weights
        assert divided[name].parts["teacher"] == weights // 8
    # Embedding, head and last norm, and two layers: 4 projections of attention with the norms of their heads, 3 of the
    # MLP, 2 norms.
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 128 + 3 * 4096 * 12288 + 2 * 4096
    gathered = 2 * (2 * 151936 * 4096 + 4096 + 2 * layer)
    assert divided["teacher scoring"].parts["gathered teacher"] == gathered
    assert "gathered teacher" not in divided["update"].parts  # it is asked before the update, and gone by then

    most = max(p.total for name, p in whole.items() if name in ("rollouts", "teacher scoring", "update"))
    for room, divides in ((most, None), (most - 1, "node")):
        assert divides_teachers(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=8, room=room) == divides
    assert not divides_teachers(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=1, room=GIB)
    assert not divides_teachers(paper("run.shard_teacher=never"), QWEN2_5_VL_3B, QWEN3_8B, devices=8, room=GIB)
    always = paper("run.shard_teacher=always")
    assert divides_teachers(always, QWEN2_5_VL_3B, QWEN3_8B, devices=8, room=999 * GIB) == "node"


def test_it_is_divided_over_nodes_only_where_one_node_does_not_hold_it() -> None:
    """Two nodes of eight: each process has an eighth of the weights, or a sixteenth."""
    recipe, weights = paper("run.shard_teacher=always"), 2 * 8_190_735_360
    near, far = (
        {p.name: p for p in plan(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=16, node=8, divided=d)}
        for d in ("node", "world")
    )
    scoring = "teacher scoring"
    assert (near[scoring].parts["teacher"], far[scoring].parts["teacher"]) == (weights // 8, weights // 16)
    most = max(p.total for name, p in near.items() if name in ("rollouts", scoring, "update"))
    for room, within in ((most, "node"), (most - 1, "world")):
        found = divides_teachers(recipe, QWEN2_5_VL_3B, QWEN3_8B, devices=16, node=8, room=room)
        assert found == within


def test_one_that_is_asked_in_each_micro_batch_needs_equally_many_of_them(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["run"]["exchange"] = "step"
    raw["distill"]["objective"] = {"method": "gkd", "mix": None}
    recipe, group = recipe_from(raw, where="test"), Processes(0, 2)
    refuse_uneven(recipe, group)
    group.teachers_divided = "node"
    with pytest.raises(ConfigError, match=r"run\.exchange"):
        refuse_uneven(recipe, group)
    raw["run"]["exchange"] = "micro_batch"
    refuse_uneven(recipe_from(raw, where="test"), group)
