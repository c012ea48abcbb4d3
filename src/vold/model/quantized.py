"""Language models whose linear layers lie in memory in 4 or 8 bits, by bitsandbytes: NF4 with scales that are quantised
too (QLoRA, arXiv 2305.14314), and LLM.int8 (arXiv 2208.07339).

Embeddings, output embedding, norms and the vision tower keep the precision they are loaded in. bitsandbytes is an extra
of the package and is imported when a recipe asks for it.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Literal, cast

from torch.nn.functional import linear

from vold.errors import CheckpointError, ConfigError
from vold.model.families import inside_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from vold.model.families import Family

Quantized = Literal["nf4", "int8"]
LIBRARY = "bitsandbytes"
BLOCK = 64
"""Weights that share a scale in NF4."""


def need_library(where: str) -> None:
    """Raises ConfigError: bitsandbytes is not installed; `where` is the key that asks for it."""
    if not import_library():
        raise ConfigError(
            f"this needs {LIBRARY}, which is not installed",
            where=where,
            fix="pip install 'vold[quant]', or drop the key",
        )


def import_library() -> bool:
    """Import bitsandbytes where it is installed; returns whether it is. To be called before PEFT, which imports it too.

    On some CPUs it fetches a kernel from the hub as it is imported, where the package `kernels` is installed: here that
    is hidden from it, as none is used.
    """
    if importlib.util.find_spec(LIBRARY) is None:
        return False
    if LIBRARY not in sys.modules:
        logging.getLogger(LIBRARY).setLevel(logging.ERROR)  # int8 warns of float16 in every product
        before = sys.modules.get("kernels")
        sys.modules["kernels"] = cast("Any", None)
        try:
            importlib.import_module(LIBRARY)
        finally:
            del sys.modules["kernels"]
            if before is not None:
                sys.modules["kernels"] = before
    return True


def refuse_quantized(config: Any, path: str) -> None:
    """Refuse a checkpoint whose weights are stored in fewer bits: what it was made from is not there to be compared
    with. Its config is read, and nothing that it names is loaded.

    Raises:
        CheckpointError: naming how it was quantised.
    """
    found: Any = getattr(config, "quantization_config", None)
    if found is not None:
        how = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        raise CheckpointError(
            "the weights of this checkpoint are quantised already",
            where=f"{path}: config.json, quantization_config",
            got=str(how),
            fix="give the release that it was made from, with quantize: nf4 or int8",
        )


def loading(kind: Quantized, dtype: torch.dtype, family: Family, device: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantise the layers `vold.model.families.linear_layers` names as they are
    read, each on the device where it stays.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    need_library("quantize")
    from transformers import BitsAndBytesConfig

    how: dict[str, Any] = {"load_in_8bit": True}
    if kind == "nf4":
        how = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
        }
    others = rf"(?!(\w+\.)?{inside_blocks(family)}).*"  # Transformers 5.24 wants whole parts of a name
    return {
        "quantization_config": BitsAndBytesConfig(**how, llm_int8_skip_modules=[others]),
        "device_map": {"": device},
    }


def settle(model: Any) -> None:
    """Make a model that was loaded so the same on every machine, and let it be saved as one that was not: its weights
    are put together then.

    Raises:
        ConfigError: it has no layer that could be quantised.
    """
    if not (layers := quantized_layers(model)):
        raise ConfigError("no layer of this model can be quantised", where="quantize", got=type(model).__name__)
    for layer in layers.values():
        layer.support_avx512bf16_for_cpu = False  # it would write weights anew for sampling, and not back bit for bit
        if layer.weight.device.type == "cpu" and layer.in_features % BLOCK and hasattr(layer.weight, "quant_state"):
            vars(layer)["forward"] = functools.partial(_product, layer)
    model.hf_quantizer = None
    del model.config.quantization_config


def _product(layer: Any, states: torch.Tensor) -> torch.Tensor:
    """What a layer does, with its weight put together as `whole_weight` does it."""
    return linear(states, whole_weight(layer, states.dtype), layer.bias)


def quantized_layers(model: torch.nn.Module) -> dict[str, Any]:
    """Layers that are quantised, by the name of their weight in the model's state."""
    kinds = ("Params4bit", "Int8Params")  # of the layer's own: an adapter shows its base layer's weight as if it were
    named = model.named_modules()
    return {f"{n}.weight": m for n, m in named if type(m._parameters.get("weight")).__name__ in kinds}


def whole_weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """The weight of a quantised layer as numbers of a precision again."""
    if not hasattr(layer.weight, "quant_state"):
        from peft.utils.integrations import dequantize_bnb_weight

        return dequantize_bnb_weight(layer.weight, layer.state).detach().to(dtype)
    import bitsandbytes.functional as library

    # As one row: of rows that are no multiple of a block, bitsandbytes takes the wrong scales on a CPU.
    state = copy.copy(layer.weight.quant_state)
    shape, state.shape = state.shape, (1, state.shape.numel())
    weight: torch.Tensor = library.dequantize_4bit(layer.weight.data, state)
    return weight.reshape(shape).to(dtype)


def plain_state(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of a model as if it were not quantised, one tensor after another."""
    packed = quantized_layers(model)
    own = {n for of in (model.named_parameters, model.named_buffers) for n, _ in of(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        if name in own:  # the rest is what bitsandbytes needs to read a weight
            yield name, whole_weight(packed[name], model.dtype) if name in packed else tensor


def layer_by_layer(model: Any, family: Family, device: torch.device) -> None:
    """Let a frozen model that lies in the host's memory work on a device: a layer is there for its own pass alone, the
    rest of the model always."""
    if device.type == "cpu":
        return
    blocks = [m for n, m in model.base_model.named_modules() if re.fullmatch(inside_blocks(family), f"{n}.")]
    inside = {id(p): p for block in blocks for p in block.parameters()}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            p.data = p.data if id(p) in inside else p.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    host = {key: p.data for key, p in inside.items()}

    def come(block: Any, _: Any) -> None:
        for p in block.parameters():
            p.data = p.data.to(device, non_blocking=True)

    def leave(block: Any, *_: Any) -> None:
        for p in block.parameters():
            p.data = host[id(p)]

    for block in blocks:
        block.register_forward_pre_hook(come)
        block.register_forward_hook(leave)


def stored_bytes(kind: Quantized, outputs: int, inputs: int) -> int:
    """Bytes of a quantised weight [outputs, inputs] with all that belongs to it.

    NF4: half a byte a weight, a scale of one byte for each 64 of them, a float32 for each 256 scales, the mean of all
    scales, and two tables of 16 and 256 float32. int8: a byte a weight and a float32 for each output.
    """
    weights = outputs * inputs
    if kind == "int8":
        return weights + 4 * outputs
    blocks = -(-weights // BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // 256) + 4 * (1 + 16 + 256)
