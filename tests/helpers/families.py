"""An untrained student of every family, a few thousand parameters each, and a batch of the demo world for it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

import tiny
from vold.data.worlds.call_tokens import build_tokenizer
from vold.data.worlds.digits import DigitTasks
from vold.model.batching import Sequences, collate
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.types import Prompt

TILES = ("<fake_token_around_image>", "<image>", "<global-img>", "<row_1_col_1>", "<end_of_utterance>")


def qwen3_vl(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    ids = tokenizer.get_vocab()
    config = Qwen3VLConfig(
        text_config={
            **_text(len(ids) + 3, tokenizer),
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    return Policy(Qwen3VLForConditionalGeneration(config), Chat(tokenizer, images, config))


def idefics3(seed: int = 0) -> Policy:
    return _tiled(Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, seed)


def smolvlm(seed: int = 0) -> Policy:
    return _tiled(SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, seed)


def llama(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    return Policy(LlamaForCausalLM(LlamaConfig(**_text(len(tokenizer) + 3, tokenizer))), Chat(tokenizer))


def _tiled(config_class: Any, model_class: Any, image_class: Any, seed: int) -> Policy:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "<|vision_start|> <|image_pad|> <|vision_end|> ", "<image>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(TILES)})
    ids = tokenizer.get_vocab()
    config = config_class(
        text_config={"model_type": "llama", **_text(len(ids) + 3, tokenizer)},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        scale_factor=2,
        image_token_id=ids["<image>"],
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    images = image_class(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False, resample=3
    )
    return Policy(model_class(config), Chat(tokenizer, images, config))


def _text(rows: int, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": rows,  # three padded rows, as in published checkpoints
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


IMAGE_STUDENTS = {"qwen2_5_vl": tiny.student, "qwen3_vl": qwen3_vl, "idefics3": idefics3, "smolvlm": smolvlm}
STUDENTS = {**IMAGE_STUDENTS, "qwen3": tiny.teacher, "llama": llama}


def prompts_of(policy: Policy, form: str, count: int = 3) -> list[Prompt]:
    tasks = DigitTasks("test", form, count, 1)  # type: ignore[arg-type]
    return [policy.chat.prompt(tasks[i].messages) for i in range(count)]


def forms(policy: Policy) -> tuple[str, ...]:
    return ("text", "image") if policy.is_vlm else ("text",)


def batch_of(policy: Policy, form: str) -> Sequences:
    prompts = prompts_of(policy, form)
    responses = [policy.chat.tokens(" ".join(["7"] * (i + 1))) for i in range(len(prompts))]
    return collate(prompts, responses, [(1,) * len(r) for r in responses], policy.chat.pad_id)


def with_adapters(policy: Policy, *, moved: bool = True) -> Policy:
    """A policy with adapters that do something."""
    policy.add_lora(rank=2, alpha=8, seed=1)
    policy.model.eval()
    if moved:
        torch.manual_seed(7)
        with torch.no_grad():
            for n, p in policy.trainable():
                if "lora_B" in n:
                    p.normal_(std=0.5)
    return policy


def grown(name: str) -> Any:
    """The config of a tiny student, wide and deep enough for its activations to count."""
    config = STUDENTS[name]().model.config
    text = config.get_text_config()
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 64, 192, 4
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 16
    if getattr(text, "layer_types", None):
        text.layer_types = ["full_attention"] * 4
    if "mrope_section" in (text.rope_parameters or {}):
        text.rope_parameters["mrope_section"] = [4, 2, 2]
    if hasattr(getattr(config, "vision_config", None), "out_hidden_size"):
        config.vision_config.out_hidden_size = 64
    return config
