"""Every small recipe, published method and feature on the pretended CUDA device, beside the CPU."""

from __future__ import annotations

from typing import Any

import pytest

import pretended_cuda
from vold.objective.presets import PRESETS

SMALL = ["demo", "sod-mini", "gkd-mini", "mopd-mini", "uni_opd-mini", "prefix_teach-mini", "cross_modal-mini"]
FEATURES = [
    "plain", "bfloat16", "checkpointing", "selective", "selective, bfloat16", "lora", "offload", "pictures",
    "pictures, bfloat16", "Qwen3-VL, bfloat16", "micro-batches",
]  # fmt: skip
METHODS = sorted(set(PRESETS) - {"sft"})
"""`sft` is the objective of the cold start, which the recipes run."""
EXACT = ("reward", "tokens", "trained_tokens", "rollout_tokens", "teacher_tokens")
CLOSE = ("loss", "grad_norm", "policy_loss", "teacher_loss", "teacher_gap", "ratio", "clip_fraction")
FAULTS = [
    "streams stay on the host", "ids stay on the host", "positions stay on the host",
    "places of states stay on the host", "the sampler's log-probs stay on the host", "scores are read on the card",
    "the teacher stays away", "the optimizer's state stays away",
]  # fmt: skip
WAITS = 6
"""Of the host in an update, a micro-batch: whether both models emit the same ids, whether the head's gradient is the
one foreseen, metrics, and the gradient's norm; two of Transformers where there are pictures."""


def run(function: str, **arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = pretended_cuda.run(f"pretended_runs:{function}", **arguments)
    return found


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return run("small", names=SMALL)


@pytest.fixture(scope="module")
def methods() -> dict[str, Any]:
    return run("presets")


@pytest.fixture(scope="module")
def features() -> dict[str, Any]:
    return run("features")


@pytest.fixture(scope="module")
def others() -> dict[str, Any]:
    return run("others")


def alike(found: dict[str, Any], rounding: float = 1e-5) -> None:
    """Both devices report the same numbers, and something was learnt."""
    for stage, rows in found["cpu"].items():
        for mine, theirs in zip(rows, found["cuda"][stage], strict=True):
            assert {k: mine[k] for k in EXACT if k in mine} == {k: theirs[k] for k in EXACT if k in theirs}, stage
            close = {k: mine[k] for k in CLOSE if k in mine}
            assert {k: theirs[k] for k in close} == pytest.approx(close, rel=rounding, abs=1e-6), stage
            assert mine["grad_norm"] > 0, stage


def few_waits(found: dict[str, Any]) -> None:
    for stage, updates in found["updates"].items():
        for update in updates:
            waits = sum(update["waits"].values())
            assert update["micro_batches"] > 0 and waits <= WAITS * update["micro_batches"], (stage, update["waits"])


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_learns_on_the_card_what_it_learns_on_the_cpu(small: dict[str, Any], name: str) -> None:
    alike(small[name])
    few_waits(small[name])


@pytest.mark.parametrize("name", METHODS)
def test_a_published_method_does_too(methods: dict[str, Any], name: str) -> None:
    alike(methods[name])
    few_waits(methods[name])


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_does_too(features: dict[str, Any], name: str) -> None:
    alike(features[name], 2e-3 if "bfloat16" in name else 1e-5)
    few_waits(features[name])


def test_an_update_of_more_micro_batches_waits_once_for_each(features: dict[str, Any]) -> None:
    """For whether the head's gradient is the one foreseen; for metrics and the gradient's norm once a step."""
    one, more = (features[name]["updates"]["distill"][0] for name in ("plain", "micro-batches"))
    assert (one["micro_batches"], sum(one["waits"].values())) == (1, 3)
    assert more["micro_batches"] > 3 and sum(more["waits"].values()) == more["micro_batches"] + 2


@pytest.mark.parametrize("name", FEATURES)
def test_no_attention_makes_a_matrix_of_scores(features: dict[str, Any], name: str) -> None:
    kinds = features[name]["counts"]["distill"]["attention"]
    assert kinds and not [kind for kind in kinds if kind.startswith("MATH")]
    assert ("varlen bfloat16 grouped" in kinds) == ("bfloat16" in name)
    assert ("varlen bfloat16" in kinds) == ("bfloat16" in name)  # windows of a tower


@pytest.mark.parametrize("kept", ["selective", "selective, bfloat16"])
def test_selective_checkpointing_makes_no_product_and_no_attention_again(features: dict[str, Any], kept: str) -> None:
    """Two layers of seven products: `checkpointing` makes all again but each layer's last, which nobody asks for."""
    plain, selective, full = (features[n]["updates"]["distill"][0] for n in ("plain", kept, "checkpointing"))
    assert selective["products"] == plain["products"] == full["products"] - 2 * 6
    assert selective["totals"]["operators"] > features["bfloat16"]["updates"]["distill"][0]["totals"]["operators"]
    if "bfloat16" in kept:  # a call that is kept is not seen a second time
        assert selective["attention"] == {"varlen bfloat16 grouped": 2}


def test_offloading_changes_no_number(features: dict[str, Any]) -> None:
    plain, moved = (features[name]["cuda"]["distill"] for name in ("plain", "offload"))
    assert [(r["loss"], r["grad_norm"]) for r in plain] == [(r["loss"], r["grad_norm"]) for r in moved]


def test_a_recipe_with_servers_is_checked_and_trained(others: dict[str, Any]) -> None:
    (line,) = [line for line in others["served"]["lines"] if "KL(sampler || trainer)" in line]
    assert float(line.split("KL(sampler || trainer) ")[1].split()[0]) < 1e-8
    assert others["served"]["row"]["mismatch"] < 1e-4 and others["served"]["row"]["trained_tokens"] > 0


def test_balancing_finds_the_same_pass_rates(others: dict[str, Any]) -> None:
    assert others["balanced"]["cuda"] == others["balanced"]["cpu"] != []


def test_a_run_that_was_broken_off_goes_on_to_the_same_weights(others: dict[str, Any]) -> None:
    whole, broken = others["resumed"]
    assert whole == broken


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_devices_in_a_step_is_found(others: dict[str, Any], name: str) -> None:
    assert others["faults"]["none"] == ""
    assert "same device" in others["faults"][name] or "can't convert cuda:0" in others["faults"][name]
