"""The head's Triton kernels without a GPU: their values in Triton's interpreter, and that they compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TRITON = ROOT / "build" / "triton"
"""Where `make test-engines` puts Triton, which PyTorch's CPU builds come without."""

pytestmark = pytest.mark.engines


def run(what: str, **environment: str) -> Any:
    path = os.pathsep.join([str(ROOT / "src"), str(TRITON)])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "kernels.py"), what],
        env=os.environ | {"PYTHONPATH": path} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_values_and_gradients_are_those_of_float64() -> None:
    """With banned ids, a temperature, a bias, several chunks, and a vocabulary that is no multiple of a block."""
    cases = run("interpret", TRITON_INTERPRET="1")
    assert len(cases) == 3
    for case in cases:
        logp, entropy, argmax, *gradients = case["differences"]
        assert logp < 1e-5 and entropy < 1e-5 and argmax == 0
        assert max(gradients) < 2e-5
        assert case["tie"] == 17  # of two equally likely ids the lower one


def test_they_compile_for_two_generations_of_gpus(tmp_path: Path) -> None:
    made = run("compile", TRITON_CACHE_DIR=str(tmp_path))
    assert sorted(made) == ["_backward sm_80", "_backward sm_90", "_forward sm_80", "_forward sm_90"]
    assert all(size > 1000 for size in made.values())
