"""What a change of phases costs where optimizer state waits in the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.clock import once
from vold.model.place import Place
from vold.training.optim import BETAS, MasterAdamW

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given


def offload(given: Given) -> dict[str, float]:
    """GB/s of the optimizer's state on its way out after an update, and back for the next one.

    The state is that of bfloat16 weights, 12 bytes each, in tensors of the size of a layer's; the first way out, in
    which the host's memory is taken, is told apart.
    """
    side = given.per(64, 4096)
    device = torch.device(given.device)
    weights = [
        torch.nn.Parameter(torch.randn(side, side, device=device, dtype=torch.bfloat16))
        for _ in range(given.per(3, 40))
    ]
    optimizer = MasterAdamW([{"params": weights, "weight_decay": 0.0}], lr=1e-6, betas=BETAS)
    place = Place(device, optimizer)
    place.take_turns()

    def update() -> None:
        for weight in weights:
            weight.grad = torch.ones_like(weight, dtype=torch.float32)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def away() -> None:
        place.leave()
        place.enter("sample")

    found = {}
    for turn in ("first", "gb_s"):
        back = once(given.device, lambda: place.enter("update"))
        update()
        size = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.numel() > 1) / 1e9
        out = once(given.device, away)
        found |= {f"{turn}_to_host": size / out} | ({f"{turn}_to_device": size / back} if turn == "gb_s" else {})
    return {"gigabytes": size, "slower_way_gb_s": min(found["gb_s_to_host"], found["gb_s_to_device"]), **found}
