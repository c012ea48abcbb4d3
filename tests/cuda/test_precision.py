"""What a GPU rounds, and which kernel attention gets there."""

from __future__ import annotations

import pytest

import pretended_cuda


def test_logits_of_a_bfloat16_model_are_not_rounded() -> None:
    """Sums of 64 products of size 1 that went through bfloat16 would be off by about 0.03."""
    assert pretended_cuda.run("pretended_precision:logits") < 1e-4


@pytest.mark.parametrize(("kind", "off"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_heads_that_share_keys_have_a_fused_kernel(kind: str, off: float) -> None:
    found = pretended_cuda.run("pretended_precision:attention", kind=kind)
    assert found["kernels"] and not [k for k in found["kernels"] if "math" in k.lower()]
    assert found["off"] < off
