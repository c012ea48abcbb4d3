"""Low-rank adapters on a student's language model, through PEFT (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vold.model.families import linear_layers, part_of
from vold.model.quantized import import_library, plain_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vold.model.families import Family

ADAPTER = "adapter"
"""Directory of the adapter inside a saved model. At the top of a model directory, Transformers would add it twice."""
BASE = ".base_layer."
"""How PEFT names what lies under an adapter."""


def add_adapters(model: Any, family: Family, *, rank: int, alpha: int, seed: int) -> Any:
    """Put adapters on every linear layer of the language model's blocks, in place; the rest of the language model is
    frozen. The vision tower and the projector stay as they are: frozen, or trained in full.

    A layer then computes W x + (alpha / rank) B A x. B starts at zero, so the model starts as it was; A is drawn from
    `seed`. Adapters are float32, whatever W is.

    Returns:
        PEFT's view of the model, which `save_adapters` wants.
    """
    import_library()
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


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is an adapter's."""
    return ".lora_" in name


def adapted(model: Any) -> dict[str, Any]:
    """Layers that have adapters, by the name of their weight in the model's state."""
    from peft.tuners.lora import LoraLayer

    return {f"{n}{BASE}weight": m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def with_adapter(
    weight: torch.Tensor, layer: Any, whole: Callable[[torch.Tensor], torch.Tensor] = lambda t: t
) -> torch.Tensor:
    """A layer's weight with its adapter added in: W + (alpha / rank) B A, rounded to the precision of W.

    Args:
        weight: W.
        layer: PEFT's layer.
        whole: makes a tensor of the adapter one that can be computed with.
    """
    a, b = (whole(matrix["default"].weight.detach()) for matrix in (layer.lora_A, layer.lora_B))
    scale: float = layer.scaling["default"]
    return (weight + (b @ a) * scale).to(weight.dtype)


def merged(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of a model with its adapters added into the weights, under the names it had without adapters.

    One tensor after another: the sums of all of them are as large as the model, in float32.
    """
    layers = adapted(model)
    for name, tensor in plain_state(model):
        if not is_adapter(name):
            yield name.replace(BASE, "."), with_adapter(tensor, layers[name]) if name in layers else tensor


def merged_state(model: Any) -> dict[str, torch.Tensor]:
    """All of `merged`, in the host's memory; what was tied stays tied."""
    tied = {n.replace(BASE, "."): id(p) for n, p in model.named_parameters(remove_duplicate=False)}
    made: dict[object, torch.Tensor] = {}
    return {n: made.setdefault(tied.get(n, n), t.cpu()) for n, t in merged(model)}


def adapters_of(view: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A and B of every layer, by their names in PEFT's view of the model."""
    return ((n, p.detach()) for n, p in view.named_parameters() if is_adapter(n))


def save_adapters(view: Any, path: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write adapters alone, as `peft.PeftModel.from_pretrained` reads them.

    Args:
        view: PEFT's view of the model.
        path: the saved model's directory.
        state: `adapters_of` it, where they do not lie in it whole.
    """
    view.save_pretrained(path / ADAPTER, save_embedding_layers=False, state_dict=state)
