"""A vision-language model of 157M parameters: DINOv2-S looks, SmolLM2-135M speaks, a new connector joins them.

The architecture is Idefics3's (SmolVLM's), so Transformers and vLLM know it. A picture of 112 x 112 pixels becomes
8 x 8 patches, and four of them one image token: 16 tokens a picture. The pictures themselves have 64 x 64 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from experiments.smollm2.packages import DEPTH, WIDTH, language_model, vision_backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import Idefics3ForConditionalGeneration, Idefics3Processor, LlamaForCausalLM

PIXELS = 112
GRID = 8
"""Patches a side."""
IMAGE_TOKENS = 16
IMAGE_TOKEN = "<image>"
NEW_TOKENS = ("<fake_token_around_image>", IMAGE_TOKEN, "<global-img>", "<end_of_utterance>")
"""What Idefics3's processor wants to find in a tokenizer."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML as SmolLM2 was tuned with, without its default system turn, and with pictures."""


def text_model() -> tuple[LlamaForCausalLM, Any]:
    """SmolLM2-135M-Instruct with the tokens and the chat template that student and teacher share.

    Raises:
        ConfigError: a package is missing.
    """
    model, tokenizer = language_model()
    tokenizer.add_special_tokens({"additional_special_tokens": list(NEW_TOKENS)})
    tokenizer.chat_template = TEMPLATE
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def join(seed: int = 0) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """The student before its connector has learnt anything, and its processor.

    Raises:
        ConfigError: a package is missing.
        DataError: a package holds another network.
    """
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    language, tokenizer = text_model()
    text = language.config.to_dict()
    text.pop("architectures", None)
    config = Idefics3Config(
        text_config=text,
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": 6,
            "image_size": PIXELS,
            "patch_size": PIXELS // GRID,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    model.model.text_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.model.vision_model.load_state_dict(siglip_names(vision_backbone()))
    model.generation_config = language.generation_config
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": PIXELS},
        max_image_size={"longest_edge": PIXELS},
        do_image_splitting=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
    )
    processor = Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=TEMPLATE
    )
    return model, processor


def siglip_names(dino: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's tensors under the names of Idefics3's tower, which has neither layer scale nor a class token.

    Layer scale multiplies what a layer's last projection gives, so it is folded into that projection. Without the
    class token patch features change a little.
    """
    grid = dino["positions"].reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(GRID, GRID), mode="bicubic", align_corners=False)
    out = {
        "embeddings.patch_embedding.weight": dino["embeddings.patch_embeddings.projection.weight"],
        "embeddings.patch_embedding.bias": dino["embeddings.patch_embeddings.projection.bias"],
        "embeddings.position_embedding.weight": grid.permute(0, 2, 3, 1).reshape(GRID * GRID, WIDTH),
        "post_layernorm.weight": dino["layernorm.weight"],
        "post_layernorm.bias": dino["layernorm.bias"],
    }
    for layer in range(DEPTH):
        old, new = f"encoder.layer.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for ours, theirs in (("layer_norm1", "norm1"), ("layer_norm2", "norm2"), ("mlp.fc1", "mlp.fc1")):
                out[f"{new}{ours}.{kind}"] = dino[f"{old}{theirs}.{kind}"]
            for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
                out[f"{new}self_attn.{ours}_proj.{kind}"] = dino[f"{old}attention.attention.{theirs}.{kind}"]
        for ours, theirs, scale in (
            ("self_attn.out_proj", "attention.output.dense", dino[f"{old}layer_scale1.lambda1"]),
            ("mlp.fc2", "mlp.fc2", dino[f"{old}layer_scale2.lambda1"]),
        ):
            out[f"{new}{ours}.weight"] = dino[f"{old}{theirs}.weight"] * scale[:, None]
            out[f"{new}{ours}.bias"] = dino[f"{old}{theirs}.bias"] * scale
    return out
