"""Low-rank adapters on a student's language model, through PEFT (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vold.model.families import linear_layers, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from vold.model.families import Family

ADAPTER = "adapter"
"""Directory of the adapter inside a saved model. At the top of a model directory, Transformers would add it twice."""


def add_adapters(model: Any, family: Family, *, rank: int, alpha: int, seed: int) -> Any:
    """Put adapters on every linear layer of the language model's blocks, in place; the rest of the language model is
    frozen. The vision tower and the projector stay as they are: frozen, or trained in full.

    A layer then computes W x + (alpha / rank) B A x. B starts at zero, so the model starts as it was; A is drawn from
    `seed`. Adapters are float32, whatever W is.

    Returns:
        PEFT's view of the model, which `save_adapters` wants.
    """
    from peft import LoraConfig, get_peft_model

    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    names = [prefix + n for n in linear_layers(model.base_model, family)]
    beside = [p for n, p in model.base_model.named_parameters() if part_of(n, family) and p.requires_grad]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        view = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=names))
    for parameter in beside:
        parameter.requires_grad_(True)
    return view


def merged_state(model: Any) -> dict[str, torch.Tensor]:
    """The state of a model with its adapters added into the weights, under the names it had without adapters."""
    from peft.tuners.lora import LoraLayer

    adapted: list[tuple[str, Any]] = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    deltas = {f"{name}.weight": module.get_delta_weight("default") for name, module in adapted}
    out = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            plain = name.replace(".base_layer.", ".")
            out[plain] = (tensor + deltas[plain]).to(tensor.dtype) if plain in deltas else tensor
    return out


def save_adapters(view: Any, path: Path) -> None:
    """Write adapters alone, as `peft.PeftModel.from_pretrained` reads them."""
    view.save_pretrained(path / ADAPTER, save_embedding_layers=False)
