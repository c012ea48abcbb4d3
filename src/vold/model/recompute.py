"""What a layer keeps for its backward pass, and what it makes again there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from vold.model import varlen

if TYPE_CHECKING:
    from vold.run.model_sections import Lora

Kept = Literal[True, "selective"]
"""Of a layer: its input alone, or also the results of products and of attention."""

aten = torch.ops.aten
PRODUCTS: dict[Any, int] = {
    aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1,
}  # fmt: skip
"""Matrix products, and which argument is the left factor."""
ATTENTION = {
    aten._scaled_dot_product_flash_attention.default, aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default, aten._scaled_dot_product_flash_attention_for_cpu.default,
    varlen.OPERATOR,
}  # fmt: skip


def checkpoint_layers(model: Any, kept: Kept, lora: Lora | None = None) -> None:
    """Have the layers of a Transformers model, in training mode, make again in the backward pass what is not kept.

    Products and attention take nearly all of a layer's time; norms, rotations and activations are cheap, and so is what
    adapters add to a weight's product, which would be kept beside it.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if kept == "selective":
        policy = partial(_policy, 0 if lora is None else lora.rank)
        options["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)(options)  # new and old name


def keep_layers(model: Any) -> None:
    """Have the layers of a model keep all that the backward pass needs, as they did before `checkpoint_layers`."""
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()


def _policy(rank: int, _: object, operator: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    dear = operator in ATTENTION or (operator in PRODUCTS and args[PRODUCTS[operator]].shape[-1] > rank)
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
