"""Freed memory is used again: counted in pages that the system had to clear."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from vold.training.optim import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("not here")
    sys.exit()
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(32):
    torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_large_blocks_are_used_again() -> None:
    """Left alone, all 32 tensors take new pages; kept, only the first few do, until a hole fits with its alignment."""

    def pages(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, text=True)
        if done.stdout.strip() == "not here":
            pytest.skip("another C library")
        return int(done.stdout)

    assert pages("keep") < pages("leave") / 2
