"""Weights laid out for products with few rows, while a model generates on a CPU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from vold.model.families import part_of
from vold.model.lm_head.chunked_logits import is_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from vold.model.policy import Policy

LARGE = 2**25
"""Bytes of weights from which one thread gains too: those of a smaller model stay in the processor's cache."""
ROWS = 64
"""Rows that oneDNN is told to expect. Of 4, 16 and 64 this was the fastest at 4, 16 and 48 rows alike."""


@contextlib.contextmanager
def reordered_weights(policy: Policy) -> Iterator[int]:
    """Inside, the language model's linear layers multiply by weights in the blocks of oneDNN's kernels.

    A step of decoding multiplies a few rows by every weight. The usual product lays the weights out again each time,
    which costs as much as the product itself; here that is done once. It takes memory for a second copy of those
    weights, and the copy is that of the weights at the start: the block must not train. Only float32 on a CPU gains by
    it, with one thread only a model of some size (`LARGE`); elsewhere nothing is done. The operators are those that
    `torch.compile` uses.

    Yields:
        How many layers were laid out.
    """
    named = [*policy.model.base_model.named_modules(), ("", policy.model.get_output_embeddings())]
    layers = [m for name, m in named if is_linear(m) and part_of(name, policy.family) is None]
    wanted = [m for m in layers if m.weight.device.type == "cpu" and m.weight.dtype == torch.float32]
    small = torch.get_num_threads() == 1 and sum(m.weight.nbytes for m in wanted) < LARGE
    if small or not torch.backends.mkldnn.is_available():
        wanted = []
    for layer in wanted:
        vars(layer)["forward"] = _product(layer)  # of this module alone, for a while
    try:
        yield len(wanted)
    finally:
        for layer in wanted:
            del vars(layer)["forward"]


def _product(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, layer.bias, "none", [], "")
        return out

    return forward
