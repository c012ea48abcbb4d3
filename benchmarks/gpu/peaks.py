"""What a card can do at its best: a product, a copy on the card, copies to the host and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.clock import seconds

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given


def product(given: Given, side: int) -> float:
    """TFLOP/s of a product of two square bfloat16 matrices of random numbers."""
    a, b = (torch.randn(side, side, device=given.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(given.device, lambda: a @ b, 9) / 1e12


def peaks(given: Given) -> dict[str, float]:
    """See `product`; GB/s of copies, a copy on the card counted as what it reads and writes."""
    side = given.per(64, 8192)
    there = torch.ones(given.per(2**16, 2**30), dtype=torch.uint8, device=given.device)
    other, size = torch.empty_like(there), there.nbytes / 1e9
    found = {
        "product_tflops": product(given, side),
        "side": side,
        "device_copy_gb_s": 2 * size / seconds(given.device, lambda: other.copy_(there)),
    }
    for kind in ("pageable", "pinned") if given.device == "cuda" else ("pageable",):
        host = torch.empty(there.shape, dtype=torch.uint8, pin_memory=kind == "pinned")
        host.zero_()  # pages that were never touched are not there yet
        out, back = (
            seconds(given.device, lambda a=a, b=b: a.copy_(b, non_blocking=True))  # type: ignore[misc]
            for a, b in ((host, there), (there, host))
        )
        found |= {f"{kind}_to_host_gb_s": size / out, f"{kind}_to_device_gb_s": size / back}
    return found
