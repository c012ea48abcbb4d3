"""What a quantised teacher was made from passes through the card a layer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

import pretended_cuda


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5_vl"])
def test_layers_come_for_their_own_pass_and_nothing_goes_back(name: str, tmp_path: Path) -> None:
    found = pretended_cuda.run("pretended_streaming:streamed", home=str(tmp_path), name=name)
    assert found["device"] == "cuda" and found["away"] < 1e-5
    assert found["rest"] <= found["once"] < found["rest"] + found["layers"]  # buffers and banned ids beside it
    assert found["a pass"] == found["layers"] > 0
    assert found["waits on"] == ["cpu"]
