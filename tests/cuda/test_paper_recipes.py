"""Recipes of published models and benchmarks on the pretended CUDA device: nothing is left on the wrong one."""

from __future__ import annotations

import math
from typing import Any

import pytest

import pretended_cuda

STAGES = {
    "qwen2_5_vl-3b": ["traces", "sft", "align", "distill", "eval"],
    "qwen2_5_vl-3b-lora": ["traces", "sft", "distill"],
    "qwen2_5_vl-3b-8gpu": ["traces", "sft", "distill"],
}
WAITS = 12
"""Of the host in an update, a micro-batch."""


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    found: dict[str, Any] = pretended_cuda.run("pretended_recipes:trained", stages=STAGES)
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_recipe_of_the_paper_learns_on_the_card(trained: dict[str, Any], name: str) -> None:
    assert list(trained[name]) == STAGES[name]
    for stage in ("sft", "distill"):
        (row,) = trained[name][stage]["rows"]
        assert row["grad_norm"] > 0 and math.isfinite(row["loss"])
        (update,) = trained[name][stage]["updates"]
        assert 0 < sum(update["waits"].values()) <= WAITS * update["micro_batches"]


def test_every_benchmark_is_answered_as_on_the_cpu_and_the_papers_by_its_recipe() -> None:
    found = pretended_cuda.run("pretended_recipes:evaluated")
    assert found["eval-mini, cuda"] == found["eval-mini, cpu"]
    assert len(found["eval-mini, cpu"]) == 22 and len(found["paper-eval, cuda"]) == 8
    for answers in (found["eval-mini, cpu"], found["paper-eval, cuda"]):
        assert all(any(response for response in responses) for responses in answers.values())
