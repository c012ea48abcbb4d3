"""Models of a published shape with random weights, and stored rollouts of uneven length."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from vold.objective.advantages import group_relative
from vold.types import Completion, Grade, Prompt, Rollout

GROUP = 4
SMALL = {"growth": (1024, 256, 1), "growth_152k": (151936, 256, 1), "endings": (64, 256, 4)}
"""Ids, width and layers of Llamas: small enough for 65,536 tokens, with few ids or many; and one that ends answers."""
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def build(shape: str, directory: Path, *, response: int | None = 16, seed: int = 0) -> None:
    """Save a model and a word-level tokenizer with one word an id, so that text and ids are the same thing.

    Weights are random, but for the end token: it has a chance of about one in `response` at every place, if that is
    given.
    """
    torch.manual_seed(seed)
    if shape == "smollm2":  # SmolLM2-135M
        size = 49152
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                max_position_embeddings=8192,
                rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
    elif shape in SMALL:
        size, width, layers = SMALL[shape]
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=width // 64,
                num_key_value_heads=width // 64,
                max_position_embeddings=8192,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
    else:  # two layers of a Qwen2.5-VL a quarter as wide as the 3B, with the published number of rows in the head
        size = 151936
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config={
                    "vocab_size": size,
                    "hidden_size": 512,
                    "intermediate_size": 2752,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 8192,
                    "tie_word_embeddings": True,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
                    "bos_token_id": None,
                    "eos_token_id": 1,
                    "pad_token_id": 0,
                },
                vision_config={
                    "depth": 1,
                    "hidden_size": 64,
                    "num_heads": 2,
                    "intermediate_size": 64,
                    "out_hidden_size": 512,
                    "fullatt_block_indexes": [0],
                },
                image_token_id=2,
                video_token_id=3,
                vision_start_token_id=4,
                vision_end_token_id=5,
                tie_word_embeddings=True,
            )
        )
    if shape not in SMALL and response is not None:
        _let_end(model, response)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w6"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w6")
    tokenizer.chat_template = CHAT
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@torch.no_grad()
def _let_end(model: Any, response: int) -> None:
    """Give the end token (id 1) a logit that makes its probability about 1 / `response`, whatever came before.

    One number of every state is made nearly constant, through the embeddings, and the end token's row of the tied head
    reads it.
    """
    rows = model.get_input_embeddings().weight
    rows[:, 0] = 1.0
    ids = torch.randint(100, len(rows), (4, 32))
    states = model.eval().base_model(input_ids=ids).last_hidden_state.flatten(0, 1)
    logits = states @ rows.t()
    wanted = logits[:, 100:].logsumexp(-1) - math.log(response - 1)
    rows[1, 0] += (wanted - logits[:, 1]).mean() / states[:, 0].mean()
    chance = (states @ rows.t()).softmax(-1)[:, 1].mean().item()
    if not 0.5 < chance * response < 2:
        raise RuntimeError(f"the end token has a probability of {chance}, not 1 / {response}")


def stored_rollouts(
    groups: int, longest: int, *, size: int, silent: int = 0, seed: int = 0
) -> tuple[list[Prompt], list[Rollout]]:
    """Rollouts in groups of four with log-normal lengths, one of them of the greatest length a group.

    The first `silent` groups have equal scores, so GRPO learns nothing from them. In the others one of four passes.
    """
    chance = random.Random(seed)
    prompts, rollouts = [], []
    for g in range(groups):
        ids = tuple(chance.randrange(100, size) for _ in range(chance.randint(longest // 4, longest // 2)))
        prompts.append(Prompt(ids))
        scores = [0.0 if g < silent else float(k == 0) for k in range(GROUP)]
        advantages = group_relative(scores, [g] * GROUP, "std", 1e-4)
        for k in range(GROUP):
            drawn = math.exp(chance.gauss(math.log(longest / 3), 0.6))
            length = longest if k == g % GROUP and g == 0 else max(4, min(longest, int(drawn)))
            response = tuple(chance.randrange(100, size) for _ in range(length))
            completion = Completion(response, (0.0,) * length, (1,) * length, "stop")
            rollouts.append(
                Rollout(
                    f"task-{g}", g, ids, completion, Grade(scores[k], None, ""), advantage=(advantages[k],) * length
                )
            )
    return prompts, rollouts
