"""A tiny model of any image-text architecture that Transformers has, with a tokenizer and a processor of its own."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3_5Tokenizer
from transformers.models.auto.auto_mappings import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

from vold.data.worlds.call_tokens import build_tokenizer
from vold.model.chat import Chat
from vold.model.families import image_text_class
from vold.model.policy import Policy
from vold.model.processors import PROCESSORS, build_processor

WIDTH = 16
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "out_hidden_size", "n_embd", "width", "projection_dim",
                     "text_hidden_size", "out_dim", "mm_hidden_size", "output_dim", "projector_hidden_dim"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "mlp_dim", "encoder_ffn_dim", "decoder_ffn_dim",
                     "projector_hidden_size", "merger_intermediate_size"), 32),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp",
                     "dense_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers", "n_layer"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "attention_heads"), 2),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_n_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("head_dim", "linear_key_head_dim", "linear_value_head_dim", "global_head_dim"), 8),
    "num_key_value_heads": 1, "max_position_embeddings": 512, "sliding_window": 6, "image_size": 16, "patch_size": 4,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "num_channels": 3, "in_channels": 3,
    "spatial_patch_size": 4, "num_position_embeddings": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "hidden_size_per_layer_input": 0, "tie_word_embeddings": True,
}  # fmt: skip
"""Sizes by the names that configs give them."""
UNSAID = ("head_dim", "num_key_value_heads", "intermediate_size", "moe_intermediate_size", "out_hidden_size")
"""Names that are also given a size where the config leaves it open."""

PINPOINTS = [[16, 32], [32, 16], [32, 32]]
AS = {"qwen3_vl_moe": "qwen3_vl"}
"""Kinds that Transformers has no image processor for: published checkpoints name that of another."""
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
SQUARE = {"vision_config": {"image_size": [16, 16], "patch_size": [4, 4]}}
CLIP = {"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
EXTRA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "glm4v", "glm46v", "glmga", "paddleocr_vl"), ({"text_config": ROPE}, {})
    ),
    "gemma3": ({"mm_tokens_per_image": 4}, {"image_seq_length": 4}),
    "internvl": ({**SQUARE, "image_seq_length": 4}, {"image_seq_length": 4}),
    "qianfan_ocr": ({**SQUARE, "image_seq_length": 4}, {"image_seq_length": 4}),
    "llava": ({}, CLIP),
    "vipllava": ({"vision_feature_layers": [-1, -2]}, CLIP),
    "llava_next": ({"image_grid_pinpoints": PINPOINTS}, CLIP),
    "llava_next_video": ({"image_grid_pinpoints": PINPOINTS}, CLIP),
    "llava_onevision": (
        {"image_grid_pinpoints": PINPOINTS},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "deepseek_vl": ({}, {"num_image_tokens": 16}),
    "janus": ({}, {"num_image_tokens": 16}),
    "llama4": (
        {
            "vision_config": {
                "intermediate_size": 64,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "vision_output_dim": 32,
                "pixel_shuffle_ratio": 0.5,
            }
        },
        {},
    ),
    "gemma4": (
        {
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "patch_size": 4,
                "position_embedding_size": 64,
                "pooling_kernel_size": 3,
            }
        },
        {},
    ),
    "mllama": ({"text_config": {"bos_token_id": 0}}, {}),
}
"""What a tiny config and its processor are told beside `SMALL`, by kind."""

TOKEN = re.compile(r"[\"'](<[^\"'<>{}\s]+>|\[[A-Z_]+\])[\"']")
"""A special token as the source of a processor spells it."""
SPOKEN = ("image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token", "start_image_token",
          "end_image_token", "context_image_token", "video_token", "image_boundary_token")  # fmt: skip
"""Attributes of tokenizers that processors ask for."""


def shrunk(made: Any, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """What to say to the class of a config for a tiny one."""
    said = vars(made)  # by layer, some sizes cannot be asked for
    own = {n: v for n, v in SMALL.items() if isinstance(said.get(n, ""), int | (type(None) if n in UNSAID else int))}
    if getattr(made, "layer_types", None) and "linear_attention" in made.layer_types:
        own["num_hidden_layers"] = 4
    rope = getattr(made, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        own["rope_parameters"] = {**rope, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
    for name in made.sub_configs:
        inner = getattr(made, name, None)
        if inner is not None:
            own[name] = {"model_type": inner.model_type, **shrunk(inner)}
    for name, value in (more or {}).items():
        inside = isinstance(value, dict) and isinstance(own.get(name), dict)
        own[name] = {**own[name], **value} if inside else value
    return own


def tokens_of(kind: str) -> list[str]:
    """Special tokens that the processor of a kind of model knows by name."""
    name = PROCESSORS.get(kind)
    own = inspect.getmodule(getattr(transformers, name)) if name else None
    return sorted(set(TOKEN.findall(inspect.getsource(own)))) if own else []


def small_images(kind: str) -> Any:
    """An image processor of small pictures, for a kind of model.

    Raises:
        ImportError: Transformers has none for Pillow.
    """
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or IMAGE_PROCESSOR_MAPPING_NAMES.get(AS.get(kind, ""))
    if not names or not ("pil" in names or find_spec("torchvision")):
        raise ImportError(f"{kind}: no image processor{' without torchvision' if names else ''}")
    stock: Any = get_image_processor_class_from_name(names.get("pil") or names["torchvision"])
    return stock(**_small(stock))


def _small(stock: Any) -> dict[str, Any]:
    own: dict[str, Any] = {}
    size, patch = getattr(stock, "size", None), getattr(stock, "patch_size", None)
    grid = isinstance(patch, int) and hasattr(stock, "merge_size")
    if size:
        edges = {"shortest_edge": 64, "longest_edge": 1024} if grid else dict.fromkeys(size, 16)
        own["size"] = {n: edges[n] for n in size}
    if patch:
        own["patch_size"] = dict.fromkeys(patch, 4) if isinstance(patch, dict) else 4
    if getattr(stock, "crop_size", None):
        own["crop_size"] = {"height": 16, "width": 16}
    if hasattr(stock, "image_grid_pinpoints"):
        own["image_grid_pinpoints"] = PINPOINTS
    if (most := getattr(stock, "max_image_size", None)) is not None:
        own["max_image_size"] = {"longest_edge": 16} if isinstance(most, dict) else 16
    for name in ("do_image_splitting", "crop_to_patches"):
        if hasattr(stock, name):
            own[name] = False
    return own


def tokenizer_of(kind: str) -> Any:
    """The demo world's tokenizer with the special tokens that a kind of processor asks for."""
    made = build_tokenizer()
    made.add_special_tokens({"additional_special_tokens": tokens_of(kind)})
    kept = {n: getattr(made, n) for n in ("pad_token", "unk_token", "eos_token", "chat_template", "padding_side")}
    spoken = {n: f"<{n}>" for n in SPOKEN}
    if kind.startswith("qwen3_5"):  # whose tokenizer cuts text its own way, whatever file it is read from: into bytes
        letters = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
        cut = Qwen3_5Tokenizer(vocab=letters, merges=[], **{**kept, "unk_token": None}, extra_special_tokens=spoken)
        cut.add_special_tokens({"additional_special_tokens": [str(t) for t in made.added_tokens_decoder.values()]})
        return cut
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **kept, extra_special_tokens=spoken)


def tiny_model(kind: str, seed: int = 0) -> Policy:
    """An untrained model of a kind, a few thousand parameters in all, and what it reads pictures with.

    Raises:
        ImportError: its pictures cannot be prepared without torchvision.
    """
    torch.manual_seed(seed)
    tokenizer = tokenizer_of(kind)
    more, settings = EXTRA.get(kind, ({}, {}))
    config = CONFIG_MAPPING[kind](**shrunk(CONFIG_MAPPING[kind](), more))
    processor = build_processor(config, small_images(kind), tokenizer, settings)
    picture = str(processor.image_token)
    template = str(tokenizer.chat_template).replace("<|vision_start|> <|image_pad|> <|vision_end|> ", f"{picture} ")
    tokenizer.chat_template = processor.chat_template = template
    shown = {"text": [picture], "images": [Image.new("RGB", (16, 16))], "return_tensors": "pt"}
    written = processor(**shown, add_special_tokens=False)["input_ids"][0].tolist()
    placed = Counter(written).most_common(1)[0][0]
    for name in ("image_token_id", "image_token_index"):
        if hasattr(config, name):
            setattr(config, name, placed)
    return Policy(_made(config, tokenizer), Chat(tokenizer, processor=processor))


def tiny_reader(kind: str, seed: int = 0) -> Policy:
    """An untrained model of a kind that is only given text, whether it could see or not."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    more, _ = EXTRA.get(kind, ({}, {}))
    config = CONFIG_MAPPING[kind](**shrunk(CONFIG_MAPPING[kind](), more))
    return Policy(_made(config, tokenizer), Chat(tokenizer))


def _made(config: Any, tokenizer: Any) -> Any:
    """A model of a config whose ids are the tokenizer's."""
    for place in (config, config.get_text_config()):
        place.vocab_size = len(tokenizer) + 3  # three padded rows, as in published checkpoints
        place.bos_token_id = None
        place.eos_token_id, place.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model_class = image_text_class(config)
    model = AutoModelForCausalLM.from_config(config) if model_class is None else model_class(config)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and not weight.any():  # some begin at zero, where no picture would count
            torch.nn.init.normal_(weight, std=0.1)
        assert weight.isfinite().all(), name
    return model
