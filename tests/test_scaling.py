"""The arithmetic of docs/scaling.md, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gpu_docs
from benchmark_scripts import load
from published_models import QWEN2_5_VL_3B, QWEN3_8B
from vold.model import pace
from vold.model.footprint import footprint
from vold.run.recipe import load_recipe

scaling = load("scaling")
PAPER = Path(__file__).parent.parent / "recipes" / "qwen2_5_vl-3b.yaml"


def test_a_step_worked_out_by_hand() -> None:
    """Ten weights, two more frozen, which text does not use; 4 rollouts of 2 + 6 tokens in four micro-batches of 8, two
    on each of two GPUs."""
    sizes = scaling.Sizes(
        student=10, outside=0, frozen=2, teacher=20, rollouts=4, prompt=2, response=6, asked=0.5, budget=8, recompute=0,
        flops=100, share_flops=0.5, memory=40, share_memory=0.5, node=8, network=4, share_link=0.5,
    )  # fmt: skip
    one, two, apart = (scaling.step(sizes, *layout) for layout in ((1, 1), (2, 1), (2, 2)))
    assert (one["micro-batches"], two["micro-batches"]) == (4, 2)
    assert one["update, products"] == 6 * 10 * 32 / 50
    assert two["update, products"] == one["update, products"] / 2
    assert one["update, exchange"] == 0
    assert two["update, exchange"] == 8 * 10 / 2 * 2 / 4
    # One GPU on each of two nodes holds all weights: once a step each gets the sums of half of the gradients, and then
    # the other half's. Divided over both, everything crosses the network.
    assert apart["update, exchange"] == 4 * 10 / 2
    assert scaling.step(replace(sizes, across=1), 2, 2)["update, exchange"] == 2 * two["update, exchange"]
    # Four of the weights are in no layer, and gathered once; in every other micro-batch the frozen ones are too.
    more = scaling.step(replace(sizes, outside=4, pictures=0.5), 2, 1)
    assert more["update, exchange"] == ((8 * 10 - 2 * 4) / 2 * 2 + 2 * 2 / 2) / 4
    # Adapters of three numbers in layers: gathered twice beside what is below them, and alone added up.
    adapters = scaling.step(replace(sizes, adapters=3), 2, 1)
    assert adapters["update, exchange"] == (4 * 10 + 8 * 3 + 4 * 3) / 2 * 2 / 4
    # Once a step: two bytes of each of 10 weights, four of each of 10 gradients, half of them from elsewhere.
    assert scaling.step(replace(sizes, once=1), 2, 1)["update, exchange"] == (2 * 10 + 4 * 10) / 2 / 4
    assert one["teacher"] == 2 * 20 * 16 / 50
    assert one["rollouts"] == 6 * 20 / 20
    assert two["rollouts"] == one["rollouts"] + 10 / 4
    assert scaling.step(replace(sizes, pictures=1), 2, 1)["rollouts"] == one["rollouts"] + 12 / 4


def test_the_page_holds_what_the_command_prints() -> None:
    page = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
    assert scaling.table(scaling.Sizes()) in page


def test_the_pages_bottlenecks_are_those_of_the_table() -> None:
    one, node, nodes = (scaling.step(scaling.Sizes(), *layout) for layout in ((1, 1), (8, 1), (16, 2)))
    phases = ("rollouts", "teacher", "update, products", "update, exchange")
    assert max(phases, key=one.__getitem__) == "update, products"
    assert max(phases, key=node.__getitem__) == "rollouts"
    assert max(phases, key=nodes.__getitem__) == "rollouts"
    assert nodes["update, exchange"] == pytest.approx(0.71, abs=0.005)
    assert nodes["update, exchange"] < nodes["update, products"] / 7
    across = scaling.step(scaling.Sizes(across=1), 16, 2)
    assert across["update, exchange"] == pytest.approx(6.45, abs=0.005)
    assert across["update, exchange"] > across["update, products"]
    once = scaling.step(scaling.Sizes(across=1, once=1), 16, 2)
    assert once["update, exchange"] == pytest.approx(0.5, abs=0.005)
    assert node["GB for rollouts"] == pytest.approx(2 * 3.09 * 7 / 8)


def test_what_was_measured_takes_the_place_of_what_was_assumed() -> None:
    """Ten weights and a teacher of twenty, as above, at 25 products a second and 3 s a token."""
    sizes = pace.Sizes(
        student=10, frozen=2, teacher=20, rollouts=4, prompt=2, response=6, asked=0.5, budget=8, recompute=0
    )
    rates = pace.Rates("a card", flops=25, token=3, copies=10)
    found = pace.at(rates, sizes, 1, 1, in_process=True, moved=40)
    assert found["update, products"] == 6 * 10 * 32 / 25
    assert found["teacher"] == 2 * 20 * 16 / 25
    assert (found["rollouts"], found["copies"]) == (6 * 3, 4)
    servers = pace.at(rates, sizes, 1, 1, in_process=False, moved=0)
    assert servers["rollouts"] == pace.step(sizes, 1, 1)["rollouts"]


def test_the_rates_are_those_of_the_file_of_figures() -> None:
    found = gpu_docs.REPORTS["gpu-h200"]["measurements"]
    assert gpu_docs.REPORTS["gpu-h200"]["card"] == f"NVIDIA {pace.H200.card}"
    assert pace.H200.flops == found["update"]["2 x 8192"]["tflops_with_recomputation"] * 1e12
    assert pace.H200.token == found["sampler"]["ms_a_token"] / 1e3
    assert pace.H200.copies == found["peaks"]["pinned_to_host_gb_s"] * 1e9


@pytest.mark.parametrize(("mask", "asked"), [("failed", 0.5), ("none", 1.0)])
def test_sizes_of_a_recipe(mask: str, asked: float) -> None:
    recipe = load_recipe(PAPER, [f"distill.objective.teacher_loss.mask={mask}"])
    student = footprint(QWEN2_5_VL_3B, "bfloat16", recipe.student)
    sizes = pace.sizes_of(recipe, student, footprint(QWEN3_8B, "bfloat16"))
    assert (sizes.student, sizes.frozen, sizes.teacher) == (3_085_938_688, 668_684_288, 8_190_735_360)
    assert (sizes.outside, sizes.adapters) == (151_936 * 2048 + 2048, 0)
    assert (sizes.rollouts, sizes.response, sizes.budget, sizes.recompute) == (260, 8192, 16384, 1)
    assert sizes.asked == asked
    assert pace.sizes_of(recipe, student, None).asked == 0


def test_sizes_of_a_recipe_with_adapters_and_with_a_tower_in_training() -> None:
    """Rank 32 on q, k, v, o, gate, up, down of 36 layers; a tower in training lies with the embeddings."""
    made = {}
    for change in ("lora={rank: 32}", "freeze=[]"):
        recipe = load_recipe(PAPER, [f"student.{change}", "student.teacher_tokens=refuse"])
        made[change] = pace.sizes_of(recipe, footprint(QWEN2_5_VL_3B, "bfloat16", recipe.student), None)
    lora, seeing = made.values()
    assert (lora.frozen, lora.student) == (668_684_288, 3_085_938_688)
    assert lora.adapters == 36 * 32 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008))
    assert (seeing.frozen, seeing.student, seeing.adapters) == (0, 3_754_622_976, 0)
    assert seeing.outside == lora.outside + 668_684_288
