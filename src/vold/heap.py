"""Memory that tensors on a CPU give back is kept for the next ones."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to use freed blocks of any size again. Returns whether it can be told (glibc can).

    Left alone, glibc returns blocks of more than 32 MiB to the system as soon as they are free, and every such tensor
    begins with pages that the system must clear. With 65,536 packed tokens that was a third of a step's time. The
    price is a higher peak of memory, as freed blocks rarely fit the next ones exactly.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, LARGEST) == 1 for which in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))
