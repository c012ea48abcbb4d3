"""The demo world's tokenizer: one token a word, shared id for id by the student and both teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|vision_start|>", "<|vision_end|>")
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
WORDS = (
    "<think>",
    "</think>",
    "\\boxed{",
    "}",
    "digits",
    ".",
    "?",
    ";",
    ",",
    "+",
    "-",
    "=",
    ">",
    "yes",
    "no",
    "sum",
    "span",
    "count",
    "above",
    "twice",
    "plus",
    "largest",
    "smallest",
    "read",
    "so",
    "and",
    "less",
    "gives",
    "take",
    "skip",
    "top",
    "bottom",
)
NUMBERS = tuple(map(str, range(64)))

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|{{ message['role'] }}|> "
    "{%- if message['content'] is string -%}{{ message['content'] }} "
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|> <|image_pad|> <|vision_end|> "
    "{%- else -%}{{ part['text'] }} {%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%} <|im_end|> {%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%} <|assistant|>{%- endif -%}"
)


def build_tokenizer(words: Sequence[str] = (*WORDS, *NUMBERS)) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that splits on blanks: the special tokens, then `words`, about 100 in all."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({w: i for i, w in enumerate([*SPECIAL, IMAGE, VIDEO, *words])}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=[*SPECIAL[3:], IMAGE, VIDEO],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
