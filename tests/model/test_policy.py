"""Models: log-probs, the chunked head, positions, freezing, saving, and what cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

import tiny
from vold.data.worlds.digits import DigitTasks
from vold.errors import CheckpointError, ConfigError, DataError, VocabularyMismatch
from vold.model.batching import Sequences, collate
from vold.model.chat import Chat
from vold.model.lm_head.logprobs import token_logprobs
from vold.model.policy import Policy
from vold.model.tokenizers import banned_ids, check_shared_ids
from vold.objective.prefix_teach import segment_spans
from vold.types import Message, Prompt


def batch_of(policy: Policy, form: str) -> Sequences:
    tasks = DigitTasks("test", form, 5, 1)  # type: ignore[arg-type]
    prompts = [policy.chat.prompt(tasks[i].messages) for i in range(5)]
    responses = [policy.chat.tokens("<think> " + " ".join(["3"] * i) + " </think>") for i in range(5)]
    return collate(prompts, responses, [(1,) * len(r) for r in responses], policy.chat.pad_id)


def test_chunked_head_equals_a_dense_one_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 8, dtype=torch.float64, requires_grad=True)
    head = torch.nn.Linear(8, 31, bias=False).double()
    targets = torch.randint(0, 28, (23,))
    banned = torch.tensor([28, 30])
    weights = torch.randn(23)
    logp, entropy, argmax = token_logprobs(hidden, head, targets, banned=banned, temperature=0.7, chunk_tokens=4)
    (logp * weights).sum().backward()
    got = (hidden.grad.clone(), head.weight.grad.clone())  # type: ignore[union-attr]
    hidden.grad = head.weight.grad = None
    logits = head(hidden).float() / 0.7
    keep = [i for i in range(31) if i not in (28, 30)]
    dense = logits[:, keep].log_softmax(-1)
    column = torch.tensor([keep.index(int(t)) for t in targets])
    expected = dense.gather(-1, column[:, None])[:, 0]
    (expected * weights).sum().backward()
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(entropy, -(dense.exp() * dense).sum(-1), rtol=1e-5, atol=1e-6)
    assert argmax.tolist() == [keep[int(i)] for i in dense.argmax(-1)]
    torch.testing.assert_close(got[0], hidden.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(got[1], head.weight.grad, rtol=1e-5, atol=1e-6)


def test_the_head_never_sees_more_tokens_than_a_chunk() -> None:
    seen: list[int] = []
    head = torch.nn.Linear(4, 9)
    head.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    hidden = torch.randn(50, 4, requires_grad=True)
    logp, _, _ = token_logprobs(
        hidden, head, torch.zeros(50, dtype=torch.int64), banned=torch.tensor([], dtype=torch.int64), chunk_tokens=8
    )
    logp.sum().backward()
    assert max(seen) == 8
    assert sum(seen) == 2 * 50  # once forward, once again in the backward pass


def test_a_batch_without_selected_tokens_back_propagates_zeros() -> None:
    hidden = torch.randn(0, 4, requires_grad=True)
    logp, _, _ = token_logprobs(
        hidden, torch.nn.Linear(4, 9), torch.zeros(0, dtype=torch.int64), banned=torch.tensor([], dtype=torch.int64)
    )
    logp.sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("form", ["text", "image"])
def test_log_probs_do_not_depend_on_padding_or_company(form: str) -> None:
    policy = tiny.student()
    policy.model.eval()
    tasks = DigitTasks("test", form, 4, 2)  # type: ignore[arg-type]
    prompts = [policy.chat.prompt(tasks[i].messages) for i in range(4)]
    responses = [policy.chat.tokens(" ".join(["7"] * (i + 1))) for i in range(4)]
    masks = [(1,) * len(r) for r in responses]
    with torch.no_grad():
        together, _, _ = policy.logprobs(collate(prompts, responses, masks, policy.chat.pad_id))
        alone = [
            policy.logprobs(collate([p], [r], [m], policy.chat.pad_id))[0]
            for p, r, m in zip(prompts, responses, masks, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_text_log_probs_after_an_image_are_those_of_a_fresh_model() -> None:
    policy = tiny.student()
    policy.model.eval()
    text, image = batch_of(policy, "text"), batch_of(policy, "image")
    with torch.no_grad():
        before = policy.logprobs(text)[0]
        policy.logprobs(image)
        after = policy.logprobs(text)[0]
    assert torch.equal(before, after)


def test_log_probs_agree_with_transformers_own_forward() -> None:
    policy = tiny.student()
    policy.model.eval()
    batch = batch_of(policy, "text")
    with torch.no_grad():
        got, _, _ = policy.logprobs(batch)
        logits = policy.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    logits[..., policy.banned] = float("-inf")
    expected = logits[batch.select].log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_picture_changes_the_answer_distribution() -> None:
    policy = tiny.student()
    policy.model.eval()
    batch = batch_of(policy, "image")
    blank = Sequences(**{**batch.__dict__, "vision": {k: v.clone() for k, v in batch.vision.items()}})
    blank.vision["pixel_values"].zero_()
    with torch.no_grad():
        assert not torch.allclose(policy.logprobs(batch)[0], policy.logprobs(blank)[0], atol=1e-6)


def test_freezing_takes_the_tower_and_the_projector_out_of_training() -> None:
    policy = tiny.student()
    everything = {n for n, _ in policy.trainable()}
    policy.freeze(["vision"])
    language_and_projector = {n for n, _ in policy.trainable()}
    policy.freeze(["projector"])
    language = {n for n, _ in policy.trainable()}
    assert all("visual" in n and "merger" not in n for n in everything - language_and_projector)
    assert all("merger" in n for n in language_and_projector - language)
    assert language
    assert not any("visual" in n for n in language)


def test_a_text_only_student_has_no_vision_to_freeze() -> None:
    with pytest.raises(ConfigError, match="no vision to freeze"):
        tiny.teacher().freeze(["vision"])


def test_what_is_saved_loads_with_transformers_and_scores_the_same(tmp_path: Path) -> None:
    policy = tiny.student()
    policy.model.eval()
    policy.save(tmp_path / "m")
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "m")
    assert torch.equal(stock.lm_head.weight, policy.model.lm_head.weight)
    ours = Policy.load(str(tmp_path / "m"))
    ours.model.eval()
    for form in ("text", "image"):
        batch, again = batch_of(policy, form), batch_of(ours, form)
        assert torch.equal(batch.input_ids, again.input_ids)
        with torch.no_grad():
            assert torch.equal(policy.logprobs(batch)[0], ours.logprobs(again)[0])
    teacher = tiny.teacher()
    teacher.save(tmp_path / "t")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "t").config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(tmp_path / "t").chat_template


def test_a_directory_cut_short_is_a_checkpoint_error(tmp_path: Path) -> None:
    tiny.student().save(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Policy.load(str(tmp_path / "m"))
    with pytest.raises(CheckpointError, match="no model directory"):
        Policy.load(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="no such directory") as caught:
        Policy.load("nobody/nothing")
    assert "download the model" in caught.value.fix


def test_missing_weights_are_named_rather_than_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny.student().save(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    lost = next(k for k in tensors if "mlp.up_proj" in k)
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 missing") as caught:
        Policy.load(str(tmp_path / "m"))
    assert "up_proj" in str(caught.value)


def test_a_text_only_model_refuses_an_image() -> None:
    policy = tiny.teacher()
    task = DigitTasks("test", "image", 1, 1)[0]
    with pytest.raises(DataError, match="text-only model was given an image"):
        policy.chat.prompt(task.messages)


def test_an_image_becomes_one_placeholder_a_digit() -> None:
    policy = tiny.student()
    task = DigitTasks("test", "image", 1, 1)[0]
    prompt = policy.chat.prompt(task.messages)
    (picture,) = task.messages[0].images
    assert prompt.ids.count(policy.model.config.image_token_id) == picture.size[0] // 8


def test_banned_ids_are_placeholders_and_rows_without_a_token() -> None:
    policy = tiny.student()
    vocabulary = policy.chat.tokenizer.get_vocab()
    rows = len(vocabulary)
    expected = {vocabulary[t] for t in ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")}
    assert set(banned_ids(policy.model.config, policy.chat.tokenizer)) == expected | {rows, rows + 1, rows + 2}


def test_tokenizers_with_other_ids_are_refused_by_name() -> None:
    ours, theirs = tiny.student().chat.tokenizer, tiny.teacher().chat.tokenizer
    assert check_shared_ids(ours, theirs) == len(ours)
    theirs.add_tokens(["more"])
    assert check_shared_ids(ours, theirs) == len(ours)
    with pytest.raises(VocabularyMismatch, match="'more' is 105 here and absent there"):
        check_shared_ids(theirs, ours)


def test_running_text_gets_no_special_tokens() -> None:
    chat = tiny.student().chat
    assert chat.text((*chat.tokens("3 + 5 = 8"), chat.end_id)) == "3 + 5 = 8"
    assert Prompt(chat.tokens("3")).ids == chat.tokens("3")
    assert chat.prompt([Message("user", "3")]).ids[1] == chat.tokens("3")[0]


def test_pieces_join_to_the_text_word_by_word_and_byte_by_byte() -> None:
    chat = tiny.student().chat
    ids = chat.tokens("<think> 1 + 2 = 3 ; </think>")
    assert "".join(chat.token_texts(ids)) == chat.tokenizer.decode(list(ids))
    assert chat.token_texts(ids)[6] == " ;"
    bpe = Tokenizer(BPE(unk_token=None))
    bpe.pre_tokenizer, bpe.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    alphabet = ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["It is so. Yes"], BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="s", pad_token="s", chat_template="x")
    text = "It is so. Ja, caf\u00e9! Yes"
    encoded = fast(text, add_special_tokens=False)["input_ids"]
    pieces = Chat(fast).token_texts(encoded)
    assert len(pieces) == len(encoded)
    assert "".join(pieces) == text and pieces.count("\u00e9") == 1  # with its last byte, after a piece of nothing
    assert segment_spans(pieces)[0].stop == len(fast("It is so.", add_special_tokens=False)["input_ids"])
    plain = fast("It is so. Yes", add_special_tokens=False)["input_ids"]
    assert Chat(fast).token_texts(plain) == [fast.decode([i]) for i in plain]  # no token changes another
    for text in ("\U0001f469\u200d\U0001f467 x", "\u0915\u094d\u0937\u093f.", "\u65e5\u672c\u8a9e"):
        ids = fast(text, add_special_tokens=False)["input_ids"]
        pieces = Chat(fast).token_texts(ids)
        assert "".join(pieces) == text and len(pieces) == len(ids)
        cut = ids[:-1]  # half a character at the end is a placeholder
        assert "".join(Chat(fast).token_texts(cut)) == fast.decode(cut)
