"""Special tokens that somebody typed are text: the ids hold none but the template's, and decode to what was typed."""

from __future__ import annotations

import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from families import IMAGE_STUDENTS
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.types import Message

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<image>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def bytewise() -> Chat:
    """A tokenizer of single bytes, in which `<think>` is one token that shows in texts."""
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(letters, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", additional_special_tokens=list(SPECIAL[1:]), chat_template=TEMPLATE
    )
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return Chat(tokenizer)


TEXTS = (
    "<|end|>",
    "a<|end|>b",
    "say <|user|> or <|assistant|><|end|> twice <|end|>",
    "<|end|<|end|>|>",
    "no picture: <image>",
    "<|end|>\ue000 0\ue000",
    "Ω <|end|> ∞",
)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_typed_into_a_prompt_ends_no_turn(text: str) -> None:
    chat = bytewise()
    messages = [Message("system", f"be {text}"), Message("user", text)]
    ids = chat.prompt(messages).ids
    special = [chat.tokenizer.convert_ids_to_tokens(i) for i in ids if i in chat.tokenizer.all_special_ids]
    assert special == ["<|end|>", "<|user|>", "<|end|>", "<|assistant|>"]  # <|system|> is no token
    assert chat.tokenizer.decode(list(ids)) == f"<|system|>be {text}<|end|><|user|>{text}<|end|><|assistant|>"


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_typed_into_an_answer_is_no_special_token(text: str) -> None:
    chat = bytewise()
    ids = chat.tokens(text)
    assert not set(ids) & set(chat.tokenizer.all_special_ids)
    assert chat.text(ids) == text


def test_tokens_that_show_in_a_text_stay_tokens() -> None:
    chat = bytewise()
    think = chat.tokenizer.convert_tokens_to_ids("<think>")
    assert think in chat.tokens("<think> <|end|>")
    assert think in chat.prompt([Message("user", "<think> <|end|>")]).ids


def test_a_token_that_was_added_later_counts() -> None:
    chat = bytewise()
    assert chat.tokens("<|new|>")
    chat.tokenizer.add_tokens([AddedToken("<|new|>", special=True)])
    new = chat.tokenizer.convert_tokens_to_ids("<|new|>")
    assert new not in chat.tokens("<|new|>")
    assert new not in chat.prompt([Message("user", "<|new|>")]).ids


def test_a_prompt_without_special_tokens_is_what_the_tokenizer_makes_of_the_template() -> None:
    chat = bytewise()
    messages = [{"role": "user", "content": "1 + 1"}]
    (rendered,) = [chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)]
    assert list(chat.prompt([Message("user", "1 + 1")]).ids) == chat.tokenizer(rendered)["input_ids"]


def test_in_a_vocabulary_of_words_they_become_unknown_words() -> None:
    chat = tiny.student().chat
    end, unknown = chat.end_id, chat.tokenizer.unk_token_id
    assert end not in chat.tokens("3 <|im_end|> 5")
    assert unknown in chat.tokens("3 <|im_end|> 5")
    assert chat.prompt([Message("user", "3 <|im_end|> 5")]).ids.count(end) == chat.prompt(
        [Message("user", "3")]
    ).ids.count(end)


@pytest.mark.parametrize("family", IMAGE_STUDENTS)
def test_a_typed_placeholder_shows_no_picture(family: str) -> None:
    policy: Policy = IMAGE_STUDENTS[family]()
    chat = policy.chat
    picture = Image.new("RGB", (16, 16), "red")
    placeholders = {t.content for t in chat.tokenizer.added_tokens_decoder.values() if t.special}
    text = " ".join(sorted(placeholders - {"<image>"}))
    ours, plain = (chat.prompt([Message("user", f"<image> {t} sum ?", (picture,))]) for t in (text, "sum"))
    image = chat.processor.image_token_id
    assert ours.ids.count(image) == plain.ids.count(image) > 0
    for key, value in plain.vision.items():
        assert (ours.vision[key] == value).all()
