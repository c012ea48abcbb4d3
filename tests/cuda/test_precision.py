"""What a GPU rounds, and which kernel attention gets there."""

from __future__ import annotations

import pytest

import pretended_cuda


def test_without_a_precision_a_card_takes_that_of_the_checkpoint_and_a_run_keeps_it() -> None:
    found = pretended_cuda.run("pretended_precision:automatic")
    assert found["said"] == [
        "dtype auto: student in bfloat16, teacher in float32",
        "dtype auto: student in float32, teacher in float32",
        "dtype auto: teacher in float32",
    ]
    assert found["card"] == ["bfloat16", "float32", "bfloat16"] and found["weights of card"] == "torch.bfloat16"
    got, fix = found["cpu"]
    assert got == "student.dtype: bfloat16 before, float32 now"
    assert fix.startswith("go on as it began with student.dtype=bfloat16; or use another run.dir")
    assert found["as told"] == found["card"]


def test_logits_of_a_bfloat16_model_are_not_rounded() -> None:
    """Sums of 64 products of size 1 that went through bfloat16 would be off by about 0.03."""
    assert pretended_cuda.run("pretended_precision:logits") < 1e-4


@pytest.mark.parametrize("window", [None, 5])
def test_packed_rows_attend_in_one_call_that_gives_what_they_give_one_by_one(window: int | None) -> None:
    """Output and three gradients; bfloat16 keeps 8 bits."""
    found = pretended_cuda.run("pretended_precision:side_by_side", window=window)
    assert found["kernels"] == {"varlen bfloat16 grouped": 1}
    assert len(found["off"]) == 4 and max(found["off"]) < 2**-7


@pytest.mark.parametrize(("kind", "off"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_heads_that_share_keys_have_a_fused_kernel(kind: str, off: float) -> None:
    found = pretended_cuda.run("pretended_precision:attention", kind=kind)
    assert found["kernels"] and not [k for k in found["kernels"] if "math" in k.lower()]
    assert found["off"] < off
