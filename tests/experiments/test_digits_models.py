"""Rows that the shipped models are trained on."""

from __future__ import annotations

from experiments.digits_models import _spelled
from vold.data.worlds import calls
from vold.data.worlds.call_tokens import build_tokenizer
from vold.model.chat import Chat

PROBLEM = calls.Problem("lcm", 4, 6, "max", 9)


def test_only_the_models_turns_are_trained() -> None:
    chat = Chat(build_tokenizer(calls.VOCABULARY))
    ids, mask = _spelled(chat, ("``` max ( 12 , 9 ) ```", "12", "\\boxed{ 12 }"))
    words = chat.tokenizer.convert_ids_to_tokens(list(ids))
    own = [w for w, m in zip(words, mask, strict=True) if m]
    assert own == ["```", "max", "(", "12", ",", "9", ")", "```", "<|im_end|>", "\\boxed{", "12", "}", "<|im_end|>"]
    assert [w for w, m in zip(words, mask, strict=True) if not m] == ["<|tool|>", "12", "<|assistant|>"]
    messages = chat.prompt([calls.message(PROBLEM)]).ids
    assert "<unk>" not in chat.tokenizer.convert_ids_to_tokens([*messages, *ids])
