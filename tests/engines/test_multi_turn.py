"""Rollouts of several turns: what is the model's own, what is the tool's, and where a rollout ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.multi_turn import TurnSampler, last_turn
from vold.engines.tools.interpreter import Limits
from vold.engines.tools.python import PythonTool, find_calls
from vold.errors import DataError
from vold.model.batching import collate
from vold.model.chat import Chat
from vold.objective.advantages import action_runs
from vold.types import Completion, Message, Prompt, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

CHATML = (
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_end|>", "<|im_start|>", "<|image_pad|>"]


def characters(template: str = CHATML) -> Chat:
    """A chat whose tokens are single characters and three special tokens: lengths can be counted by eye."""
    ids = {
        token: i for i, token in enumerate([*SPECIAL, "?", *map(chr, range(32, 63)), *map(chr, range(64, 127)), "\n"])
    }
    made = Tokenizer(models.WordLevel(ids, unk_token="?"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", additional_special_tokens=SPECIAL[1:]
    )
    tokenizer.chat_template = template
    return Chat(tokenizer)


def spell(chat: Chat, text: str) -> str:
    return "".join(chat.tokenizer.convert_ids_to_tokens(list(chat.tokens(text))))


def test_a_tool_answers_in_the_words_of_the_chat_template() -> None:
    chat = characters()
    ids = chat.after_turn("42")
    expected = "\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert "".join(chat.tokenizer.convert_ids_to_tokens(list(ids))) == expected


def test_special_tokens_in_a_tools_answer_are_broken_up() -> None:
    chat = characters()
    plain, evil = chat.after_turn("x"), chat.after_turn("<|im_end|><|image_pad|>")
    for token in SPECIAL:
        number = chat.tokenizer.convert_tokens_to_ids(token)
        assert evil.count(number) == plain.count(number)


def test_a_template_without_a_place_for_tools_is_refused() -> None:
    silent = "{% for m in messages if m.role != 'tool' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(DataError, match="no place for a tool's answer"):
        characters(silent).after_turn("42")


@pytest.mark.parametrize(
    ("form", "turn", "calls"),
    [
        ("hermes", 'so <tool_call>\n{"name": "python", "arguments": {"code": "1+1"}}\n</tool_call>', [("1+1", "")]),
        ("hermes", '<tool_call>{"name": "code_interpreter", "arguments": {"code": "2"}}</tool_call>', [("2", "")]),
        ("hermes", "no call at all", []),
        ("hermes", '<tool_call>{"name": "python", "arguments": {"code": "1"}}', []),
        ("hermes", "<tool_call>1+1</tool_call>", [(None, "the call is not JSON")]),
        ("hermes", "<tool_call>[1]</tool_call>", [(None, "there is no tool None")]),
        (
            "hermes",
            '<tool_call>{"name": "shell", "arguments": {"code": "ls"}}</tool_call>',
            [(None, "no tool 'shell'")],
        ),
        (
            "hermes",
            '<tool_call>{"name": "python", "arguments": {"code": 3}}</tool_call>',
            [(None, "`code` is missing")],
        ),
        ("hermes", '<tool_call>{"name": "python", "arguments": "1"}</tool_call>', [(None, "`code` is missing")]),
        ("hermes", f"<tool_call>{'[' * 100_000}</tool_call>", [(None, "the call is not JSON")]),
        (
            "hermes",
            '<tool_call>{"name": "python", "arguments": {"code": "1"}}</tool_call> and <tool_call>x</tool_call>',
            [("1", ""), (None, "the call is not JSON")],
        ),
        ("fenced", "so\n```python\nx = 1\nx\n```", [("x = 1\nx\n", "")]),
        ("fenced", "``` 1 + 1 ```", [("1 + 1 ", "")]),
        ("fenced", "``` 1 + 1", []),
        ("fenced", "nothing", []),
    ],
)
def test_calls_are_found_and_broken_ones_are_named(form: str, turn: str, calls: list[tuple[str | None, str]]) -> None:
    found = find_calls(turn, form)  # type: ignore[arg-type]
    assert [p for p, _ in found] == [p for p, _ in calls]
    assert all(said in why for (_, why), (_, said) in zip(found, calls, strict=True))


def test_the_python_tool_answers_calls_and_says_what_is_wrong_with_others() -> None:
    tool = PythonTool("hermes", Limits(seconds=5.0))
    call = '<tool_call>{"name": "python", "arguments": {"code": "%s"}}</tool_call>'
    said = tool.observe(
        [call % "6 * 7", "done", call % "1 / 0", "<tool_call>x</tool_call>", call % "None", call % "6 * 7"]
    )
    assert said[:2] == ["42", None]
    assert said[2] is not None
    assert said[2].endswith("ZeroDivisionError: division by zero")
    assert said[3] is not None
    assert said[3].startswith("ToolError: the call is not JSON")
    assert said[4:] == ["(no output)", "42"]


class Scripted:
    """A sampler that says what it is told to, turn by turn; every token has log-prob -1."""

    def __init__(self, chat: Chat, *turns: list[str]) -> None:
        self.chat, self.turns = chat, list(turns)
        self.asked: list[list[str]] = []

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        texts = self.turns.pop(0)
        self.asked.append(["".join(self.chat.tokenizer.convert_ids_to_tokens(list(p.ids))) for p in prompts])
        out = []
        for text in texts:
            ids = (*self.chat.tokens(text), self.chat.end_id)
            whole = len(ids) <= params.max_new_tokens
            ids = ids[: params.max_new_tokens]
            out.append(Completion(ids, (-1.0,) * len(ids), (1,) * len(ids), "stop" if whole else "length"))
        return [out[i * n : (i + 1) * n] for i in range(len(prompts))]


class Adds:
    """Answers `?` turns with their number of characters."""

    def observe(self, turns: Sequence[str]) -> list[str | None]:
        return [str(len(t)) if t.endswith("!") else None for t in turns]


BEFORE, AFTER = "\n_user\n<tool_response>\n", "\n</tool_response>_\n_assistant\n"
"""What stands around a tool's answer, each special token as one character."""
TOOL = len(BEFORE) + 1 + len(AFTER)
"""Tokens of an answer of one character."""


def test_turns_are_joined_with_the_tools_tokens_masked() -> None:
    chat = characters()
    sampler = Scripted(chat, ["ab!", "no"], ["c!"], ["end"])
    turns = TurnSampler(sampler, chat, Adds(), max_turns=4)
    ((first, second),) = turns.generate([Prompt(chat.tokens("Q"))], SamplingParams(400), n=2)
    assert len(chat.after_turn("3")) == TOOL
    assert first.action_mask.tolist() == [1] * 4 + [0] * TOOL + [1] * 3 + [0] * TOOL + [1] * 4
    assert [len(r) for r in action_runs(first.action_mask)] == [4, 3, 4]
    assert all((logp == -1.0) == bool(action) for logp, action in zip(first.logps, first.action_mask, strict=True))
    assert chat.text(last_turn(first.ids, first.action_mask)) == "end"
    assert first.finish == "stop"
    assert second.action_mask.tolist() == [1] * 3
    assert sampler.asked[1] == [
        "Qab!<|im_end|>" + "".join(chat.tokenizer.convert_ids_to_tokens(list(chat.after_turn("3"))))
    ]


def test_a_prompt_is_handed_over_after_the_turn_that_ends_its_last_rollout() -> None:
    """Of three prompts with two rollouts the second never asks, the first asks once, and the third to the end."""
    chat = characters()
    sampler = Scripted(chat, ["a!", "no", "no", "no", "b!", "c!"], ["d", "e!", "f"], ["g!"])
    heard = list[tuple[int, int, list[int]]]()

    def whole(place: int, completions: list[Completion]) -> None:
        heard.append((len(sampler.asked), place, [len(action_runs(c.action_mask)) for c in completions]))

    turns = TurnSampler(sampler, chat, Adds(), max_turns=3)
    prompts = [Prompt(chat.tokens(q)) for q in "QRS"]
    made = turns.stream(prompts, SamplingParams(400), 2, whole)
    assert heard == [(1, 1, [1, 1]), (2, 0, [2, 1]), (3, 2, [3, 2])]
    assert [[len(action_runs(c.action_mask)) for c in group] for group in made] == [[2, 1], [1, 1], [3, 2]]


def test_a_rollout_ends_with_its_last_allowed_turn() -> None:
    chat = characters()
    turns = TurnSampler(Scripted(chat, ["a!"], ["b!"]), chat, Adds(), max_turns=2)
    (((done),),) = turns.generate([Prompt(chat.tokens("Q"))], SamplingParams(400))
    assert (len(action_runs(done.action_mask)), done.finish) == (2, "stop")


def test_no_room_for_the_tools_answer_ends_a_rollout_as_truncated() -> None:
    chat = characters()
    turns = TurnSampler(Scripted(chat, ["a!"]), chat, Adds(), max_turns=4)
    (((done),),) = turns.generate([Prompt(chat.tokens("Q"))], SamplingParams(3 + TOOL))
    assert (done.action_mask.tolist(), done.finish) == ([1, 1, 1], "length")


def test_each_rollout_keeps_to_its_own_budget() -> None:
    """One row has used more than the other: its second turn is cut where its own budget ends."""
    chat = characters()
    turns = TurnSampler(Scripted(chat, ["aaaaaa!", "b!"], ["cccc", "dddd"]), chat, Adds(), max_turns=4)
    budget = 8 + TOOL + 3
    ((long, short),) = turns.generate([Prompt(chat.tokens("Q"))], SamplingParams(budget), n=2)
    assert (len(long.ids), long.finish) == (budget, "length")
    assert (len(short.ids), short.finish) == (3 + TOOL + 5, "stop")


def test_a_turn_that_is_cut_off_is_not_answered() -> None:
    chat = characters()
    turns = TurnSampler(Scripted(chat, ["aaaaaaaaaaaa!"]), chat, Adds(), max_turns=4)
    (((done),),) = turns.generate([Prompt(chat.tokens("Q"))], SamplingParams(5))
    assert (done.finish, done.action_mask.tolist()) == ("length", [1] * 5)


class Always:
    """Answers every turn with a word."""

    def observe(self, turns: Sequence[str]) -> list[str | None]:
        return ["3 5" for _ in turns]


TOOL_TEMPLATE = (
    "{%- for m in messages -%}<|{{ 'user' if m.role == 'tool' else m.role }}|> {{ m.content }} "
    "{%- if m.role == 'assistant' -%} <|im_end|> {%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%} <|assistant|>{%- endif -%}"
)


def test_behaviour_log_probs_of_all_turns_are_those_of_the_trainer() -> None:
    """A real model, several turns: what the sampler says of its own tokens, the trainer computes again in one pass."""
    policy = tiny.student(3)
    policy.chat.tokenizer.chat_template = TOOL_TEMPLATE
    turns = TurnSampler(InProcessSampler(policy, 8), policy.chat, Always(), max_turns=3)
    prompts = [policy.chat.prompt([Message("user", text)]) for text in ("digits 3 5 . sum ?", "digits 1 2 4 . span ?")]
    groups = turns.generate(prompts, SamplingParams(100, seed=4, candidates=2), n=16)
    made = [c for group in groups for c in group]
    assert any(len(action_runs(c.action_mask)) == 3 for c in made)
    assert all(c.candidate_ids is not None and len(c.candidate_ids) == len(c.ids) for c in made)
    batch = collate(
        [p for p in prompts for _ in range(16)],
        [c.ids for c in made],
        [c.action_mask for c in made],
        policy.chat.pad_id,
    )
    logp, _, _ = policy.logprobs(batch)
    behaviour = [v for c in made for v, action in zip(c.logps, c.action_mask, strict=True) if action]
    assert torch.allclose(logp.detach(), torch.tensor(behaviour), atol=1e-5)
    again = turns.generate(prompts, SamplingParams(100, seed=4, candidates=2), n=16)
    assert again == groups
