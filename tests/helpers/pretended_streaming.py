"""A model that lies in the host's memory and passes through the card a layer at a time, on the pretended device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from families import STUDENTS, batch_of
from pretended_cuda.device import counting
from vold.model.policy import Policy
from vold.model.quantized import layer_by_layer


def streamed(home: str, name: str) -> dict[str, Any]:
    """How far its log-probs are from the host's, bytes to the card for a pass, and those of its layers and the rest."""
    STUDENTS[name]().save(Path(home))
    there, here = (Policy.load(home) for _ in range(2))
    prefix = f"{here.family.language}." if here.family.language else ""
    named = [*here.model.base_model.named_parameters()]
    layers = sum(p.nbytes for n, p in named if n.startswith(f"{prefix}layers."))
    rest = sum(p.nbytes for p in here.model.parameters()) - layers
    batch = batch_of(here, "text")
    with counting() as moved:
        layer_by_layer(there.model, there.family, torch.device("cuda"))
        there.ban_placeholders()
    with torch.no_grad(), counting() as counts:
        got = there.logprobs(batch)[0]
    with torch.no_grad():
        expected = here.logprobs(batch)[0]
    waits = {p.device.type for n, p in there.model.base_model.named_parameters() if n.startswith(f"{prefix}layers.")}
    return {
        "device": got.device.type,
        "away": float((got.cpu() - expected).abs().max()),
        "layers": layers,
        "rest": rest,
        "once": moved.to_card.total(),
        "a pass": sum(n for line, n in counts.to_card.items() if "quantized" in line),
        "waits on": sorted(waits),
    }
