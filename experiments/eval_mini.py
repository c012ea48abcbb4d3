"""A VLM small enough to answer every benchmark on a CPU in seconds, to try an evaluation out before a model is at hand.

`python -m experiments.eval_mini DIRECTORY` trains one (half a minute) and saves it. It reads any text byte by byte and
any picture, and has learnt to end with an answer in a box; that the answer is right is chance.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from vold.model.policy import Policy

SPECIAL = ("<pad>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|vision_start|>", "<|vision_end|>")
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
TEMPLATE = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part['text'] }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
ANSWERS = ("A", "B", "C", "D", "E", "1", "2", "3", "4", "5", "10", "12", "0.5", "3.14")
CONTEXT = 8192


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of one token a byte, so that any text of any benchmark can be asked."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, IMAGE, VIDEO, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=[*SPECIAL[2:], IMAGE, VIDEO],
        chat_template=TEMPLATE,
        padding_side="left",
    )


def build(seed: int = 0, steps: int = 300) -> Policy:
    """Make and train the model; the same seed gives the same weights at the same number of threads."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from vold.model.chat import Chat
    from vold.model.policy import Policy

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<pad>"],
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0],
            "out_hidden_size": 32,
            "in_channels": 3,
        },
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=64 * 28 * 28)
    policy = Policy(Qwen2_5_VLForConditionalGeneration(config), Chat(tokenizer, images))
    _train(policy, random.Random(seed), steps)
    return policy


def _train(policy: Policy, rng: random.Random, steps: int) -> None:
    """Teach the form of an answer: any question, then a boxed answer and the end."""
    import torch

    chat, model = policy.chat, policy.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        rows, starts = [], []
        for _ in range(16):
            question = "".join(rng.choice("abcdefgh ?123.\n") for _ in range(rng.randint(4, 60)))
            prompt = chat.tokens(f"<|user|>{question}<|im_end|><|assistant|>")
            answer = chat.tokens(f"so \\boxed{{{rng.choice(ANSWERS)}}}<|im_end|>")
            rows.append([*prompt, *answer])
            starts.append(len(prompt))
        width = max(map(len, rows))
        ids = torch.tensor([r + [chat.pad_id] * (width - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
        labels = ids.masked_fill(mask == 0, -100)
        for row, start in zip(labels, starts, strict=True):
            row[:start] = -100
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m experiments.eval_mini DIRECTORY")
    build().save(Path(sys.argv[1]))
    print(f"wrote {sys.argv[1]}")
