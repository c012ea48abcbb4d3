"""Which card holds a run, and which keys make it fit a smaller one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model.cards import CARDS, changed, cures, highest, in_words, smaller_card, smallest_card
from vold.model.memory import plan
from vold.model.phases import PhaseMemory
from vold.model.together import refuse_together
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from vold.run.recipe import Recipe

GIB = 2**30
RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = RECIPES / "qwen2_5_vl-3b.yaml"


def planned(recipe: Recipe) -> list[PhaseMemory]:
    """The paper's pair on one GPU."""
    refuse_together(recipe, 1, "sft", "distill")
    return plan(recipe, QWEN2_5_VL_3B, QWEN3_8B)


def test_the_smallest_card_is_the_first_with_enough_memory() -> None:
    assert [smallest_card(int(n * GIB)) for n in (10, 22, 22.1, 79, 80, 300)] == [
        "16 GB", "24 GB", "32 GB", "80 GB", "96 GB", None
    ]  # fmt: skip
    assert [smaller_card(n) for n in ("80 GB", "16 GB", None)] == ["48 GB", None, "288 GB"]
    assert list(CARDS.values()) == sorted(CARDS.values())


@pytest.mark.parametrize(
    ("room", "overrides", "words"),
    [
        (96, [], "run.offload=true"),
        (70, ["distill.prompts_per_step=4"], "run.offload=true"),
        (62, ["distill=null", "student.activation_checkpointing=false"], "student.activation_checkpointing=true"),
        (70, ["distill=null", "sft.token_budget=65536"], "sft.token_budget=32768"),
        (42, ["distill=null", "eval.batch_size=128", "sft=null"], "eval.batch_size=64"),
        (2, ["distill=null"], None),
        (20, ["distill=null", "student.teacher_tokens=refuse"], 'student.lora={"rank": 64, "alpha": 128}'),
        (80, [], "run.offload=true"),
        (80, ["distill.batch_size=260", "run.offload=true"], "distill.batch_size=130"),
        (90, ["distill.prompts_per_step=4", "run.offload=true"], ""),
    ],
)
def test_keys_that_make_a_run_fit_do_so_and_none_is_to_spare(
    room: int, overrides: list[str], words: str | None
) -> None:
    here = ["teacher.server=null", "distill.engine=null", "traces=null", "align=null"]
    without = ["eval.endpoint=null"] if any(o.startswith("eval.") for o in overrides) else ["eval=null"]
    recipe = load_recipe(PAPER, [*here, *without, *overrides])
    found = cures(recipe, planned, room * GIB)
    if words is None:
        assert found is None
        return
    assert found is not None and in_words(found) == words
    assert highest(planned(changed(recipe, found))).total <= room * GIB
    for key in found:
        rest = {k: v for k, v in found.items() if k != key}
        assert highest(planned(changed(recipe, rest))).total > room * GIB


@pytest.mark.parametrize(
    ("room", "stage", "keys"),
    [
        (45, "sft", {"sft.optimizer.moments": "8bit"}),
        (8, "sft", {"student.quantize": "nf4"}),
        (22, "distill", {"run.offload": True, "teacher.quantize": "nf4"}),
    ],
)
def test_fewer_bits_are_among_the_keys(room: int, stage: str, keys: dict[str, object]) -> None:
    """A teacher in int8 is not offered with offload, which it cannot do."""
    here = ["teacher.server=null", "distill.engine=null", "traces=null", "align=null", "eval=null"]
    recipe = load_recipe(PAPER, here if stage == "distill" else [*here, "distill=null"])
    found = cures(recipe, planned, room * GIB)
    assert found is not None and {key: found.get(key) for key in keys} == keys
    assert highest(planned(changed(recipe, found))).total <= room * GIB


def test_changes_do_not_touch_the_recipe_they_are_made_to() -> None:
    recipe = load_recipe(PAPER)
    other = changed(recipe, {"sft.token_budget": 8192, "run.offload": True})
    assert other.sft is not None and (other.sft.token_budget, other.run.offload) == (8192, True)
    assert recipe == load_recipe(PAPER)
    assert other != recipe and other.distill == recipe.distill


def test_a_recipe_is_planned_for_the_card_of_its_name() -> None:
    """With two GiB to spare."""
    most = highest(planned(load_recipe(RECIPES / "qwen2_5_vl-3b-24gb.yaml"))).total
    assert smallest_card(most) == "24 GB"
    assert most < (CARDS["24 GB"] - 2) * GIB
