"""Freed memory is used again: counted in pages that the system had to clear."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from vold.heap import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("not here")
    sys.exit()
torch.ones(2**25)  # 128 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(2**24)  # 64 MiB, which fit into it
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_a_large_block_is_used_again() -> None:
    """Four tensors of 64 MiB take at least 4 * 32 huge pages, or 4 * 16384 small ones, from the system; or none."""

    def pages(mode: str) -> str:
        done = subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    kept = pages("keep")
    if kept == "not here":
        pytest.skip("another C library")
    assert int(kept) < 32
    assert int(pages("leave")) >= 128
