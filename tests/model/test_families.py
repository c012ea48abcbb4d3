"""Every family of students: pictures, sampling, gradients and saving through one interface."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto.auto_mappings import PROCESSOR_MAPPING_NAMES

import tiny
from families import IMAGE_STUDENTS, STUDENTS, batch_of, forms, idefics3, prompts_of
from vold.engines.samplers.inprocess import InProcessSampler
from vold.errors import CheckpointError, ConfigError, DataError
from vold.model.batching import collate
from vold.model.families import Family, family_of, image_text_class, linear_layers, part_of
from vold.model.policy import Policy
from vold.model.processors import build_processor
from vold.types import Message, SamplingParams

every = pytest.mark.parametrize("name", STUDENTS)
with_images = pytest.mark.parametrize("name", IMAGE_STUDENTS)


def noise(*size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


@every
def test_sampled_log_probs_are_those_of_teacher_forcing(name: str) -> None:
    policy = STUDENTS[name]()
    policy.model.eval()
    for form in forms(policy):
        prompts = prompts_of(policy, form)
        done = InProcessSampler(policy).generate(prompts, SamplingParams(6, 0.8, seed=3), 2)
        rows = [(p, c) for p, group in zip(prompts, done, strict=True) for c in group]
        batch = collate([p for p, _ in rows], [c.ids for _, c in rows], [c.action_mask for _, c in rows], 0)
        with torch.no_grad():
            again, _, _ = policy.logprobs(batch, temperature=0.8)
        torch.testing.assert_close(again, torch.tensor([v for _, c in rows for v in c.logps]), rtol=1e-5, atol=1e-5)


@every
def test_what_is_saved_is_the_same_model_for_us_and_for_transformers(name: str, tmp_path: Path) -> None:
    policy = STUDENTS[name]()
    policy.model.eval()
    policy.save(tmp_path / "m")
    again = Policy.load(str(tmp_path / "m"))
    again.model.eval()
    stock = type(policy.model).from_pretrained(tmp_path / "m").eval()
    for form in forms(policy):
        batch, other = batch_of(policy, form), batch_of(again, form)
        assert torch.equal(batch.input_ids, other.input_ids)
        with torch.no_grad():
            expected = policy.logprobs(batch)[0]
            assert torch.equal(again.logprobs(other)[0], expected)
            extra = dict(batch.vision)
            if "image_grid_thw" in extra:
                extra["mm_token_type_ids"] = (batch.input_ids == policy.model.config.image_token_id).int()
            logits = stock(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **extra).logits
        logits[..., policy.banned] = float("-inf")
        theirs = logits[batch.select].log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
        torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)


@every
def test_what_is_saved_names_transformers_own_processor(name: str, tmp_path: Path) -> None:
    policy = STUDENTS[name]()
    policy.save(tmp_path)
    file = tmp_path / "processor_config.json"
    assert file.exists() == policy.is_vlm
    if policy.is_vlm:
        stock = PROCESSOR_MAPPING_NAMES[policy.model.config.model_type]
        content = json.loads(file.read_text())
        assert content["processor_class"] == stock
        assert hasattr(transformers, stock)
        parts = getattr(transformers, stock).get_attributes()
        films = content.get("video_processor", {}).get("video_processor_type", "")
        # vLLM, which has torchvision, reads a processor with all its parts: without this one it refuses the model.
        assert ("video_processor" in parts) == films.endswith("VideoProcessor")
        assert hasattr(transformers, films or stock)


@with_images
@pytest.mark.parametrize("frozen", [(), ("vision",), ("projector",), ("vision", "projector")])
def test_gradients_reach_what_is_trained_and_nothing_that_is_frozen(name: str, frozen: tuple[str, ...]) -> None:
    policy = IMAGE_STUDENTS[name]()
    policy.freeze(frozen)  # type: ignore[arg-type]
    policy.model.train()
    policy.logprobs(batch_of(policy, "image"))[0].sum().backward()
    for path, parameter in policy.model.base_model.named_parameters():
        part = part_of(path, policy.family)
        got = parameter.grad is not None and bool(parameter.grad.any())
        # The key projection's bias moves every score of a query alike, so its gradient is zero but for rounding.
        assert got == (part not in frozen) or "k_proj.bias" in path or "attn.qkv.bias" in path, path
    trained = {part_of(n.removeprefix("model."), policy.family) for n, _ in policy.trainable()}
    assert trained == {None, "vision", "projector"} - set(frozen)


@with_images
def test_prompts_with_one_picture_two_and_none_do_not_disturb_each_other(name: str) -> None:
    policy = IMAGE_STUDENTS[name]()
    policy.model.eval()
    messages = [
        Message("user", "<image> sum ?", (noise(16, 16),)),
        Message("user", "digits 3 5 . sum ?"),
        Message("user", "<image> and <image> sum ?", (noise(20, 12), noise(8, 16))),
    ]
    prompts = [policy.chat.prompt([m]) for m in messages]
    answer = policy.chat.tokens("3 7")
    with torch.no_grad():
        together = policy.logprobs(collate(prompts, [answer] * 3, [(1, 1)] * 3, 0))[0]
        alone = [policy.logprobs(collate([p], [answer], [(1, 1)], 0))[0] for p in prompts]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_large_picture_becomes_several_tiles() -> None:
    policy = idefics3()
    policy.model.eval()
    images = policy.chat.processor.image_processor
    images.do_image_splitting, images.size = True, {"longest_edge": 32}
    policy.chat.tokenizer.add_tokens([f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)])
    policy.model.resize_token_embeddings(len(policy.chat.tokenizer) + 3)
    prompt = policy.chat.prompt([Message("user", "sum ?", (noise(32, 32),))])
    # 32 pixels a side are 2 x 2 tiles of 16, and the whole picture once more; a tile is (16 / 4 / 2)^2 = 4 tokens.
    assert prompt.vision["pixel_values"].shape == (5, 1, 3, 16, 16)
    assert prompt.ids.count(policy.model.config.image_token_id) == 5 * 4
    answer = policy.chat.tokens("3")
    with torch.no_grad():
        logp, _, _ = policy.logprobs(collate([prompt, prompt], [answer] * 2, [(1,)] * 2, 0))
    torch.testing.assert_close(logp[0], logp[1])


@with_images
def test_a_response_never_holds_a_placeholder_or_an_id_without_a_token(name: str) -> None:
    policy = IMAGE_STUDENTS[name]()
    vocabulary = policy.chat.tokenizer.get_vocab()
    rows = policy.model.config.get_text_config().vocab_size
    never = {i for t, i in vocabulary.items() if t in ("<image>", "<global-img>") or "fake_token" in t or "<row" in t}
    never |= {i for t, i in vocabulary.items() if "vision" in t or "_pad|>" in t}
    never |= {len(vocabulary), len(vocabulary) + 1, len(vocabulary) + 2}
    assert max(never) == rows - 1
    prompts = prompts_of(policy, "image", 2)
    done = InProcessSampler(policy).generate(prompts, SamplingParams(60, temperature=50.0, seed=1), 32)
    seen = {i for group in done for c in group for i in c.ids}
    assert not seen & never
    assert seen == set(range(rows)) - never  # at this temperature every other id turns up
    text = prompts_of(policy, "text", 1) * len(never)
    asked = collate(text, [(i,) for i in sorted(never)], [(1,)] * len(never), 0)
    assert bool(policy.logprobs(asked)[0].isneginf().all())


@every
def test_adapters_would_go_to_the_language_models_blocks_only(name: str) -> None:
    policy = STUDENTS[name]()
    names = linear_layers(policy.model.base_model, policy.family)
    layers = policy.model.config.get_text_config().num_hidden_layers
    assert len(names) == layers * 7  # q, k, v, o, gate, up, down
    assert all(part_of(n, policy.family) is None for n in names)


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(tmp_path: Path) -> None:
    policy = STUDENTS["llama"]()
    policy.chat.tokenizer.add_tokens([f"<extra-{i}>" for i in range(4)])  # three rows are to spare
    with pytest.raises(CheckpointError, match="more tokens than"):
        Policy(policy.model, policy.chat)


KNOWN = {
    "qwen2_5_vl": Family("language_model", "visual", ("visual.merger",), rotates_by_grid=True),
    "qwen3_vl": Family(
        "language_model", "visual", ("visual.merger", "visual.deepstack_merger_list"), rotates_by_grid=True
    ),
    "idefics3": Family("text_model", "vision_model", ("connector",)),
    "smolvlm": Family("text_model", "vision_model", ("connector",)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_parts_are_found_without_a_table(name: str) -> None:
    found = family_of(STUDENTS[name]().model.config)
    assert dataclasses.replace(found, inputs=KNOWN[name].inputs) == KNOWN[name]


@pytest.mark.parametrize("name", ["LlavaConfig", "Gemma3Config", "Qwen3_5Config", "InternVLConfig", "Mistral3Config"])
def test_any_image_text_model_has_parts(name: str) -> None:
    family = family_of(getattr(transformers, name)())
    assert family.language == "language_model"
    assert family.tower in ("visual", "vision_tower")
    assert family.projector


def test_a_prompt_that_is_shown_frames_in_place_of_a_picture_is_refused_in_words() -> None:
    frames: Any = [noise(32, 32), noise(32, 32)]
    with pytest.raises(DataError, match="a prompt is shown pictures, and no video"):
        STUDENTS["qwen2_5_vl"]().chat.prompt([Message("user", "<image> sum ?", (frames,))])


@pytest.mark.parametrize("name", ["Fuyu", "Chameleon", "Emu3"])
def test_a_model_that_sees_does_not_pass_as_text_where_its_config_names_no_tower(name: str) -> None:
    more = {} if name == "Fuyu" else {"vocabulary_map": {"<image>": 5}}
    config = getattr(transformers, f"{name}Config")(**more)
    assert not hasattr(config, "vision_config")
    assert image_text_class(config) is not None
    assert family_of(config).tower


def test_a_model_that_sees_is_told_by_transformers_table_and_not_by_a_key_of_its_config() -> None:
    assert not hasattr(fuyu := transformers.FuyuConfig(), "vision_config")
    assert image_text_class(fuyu) is transformers.FuyuForCausalLM
    assert family_of(fuyu).tower == "vision_embed_tokens"
    assert image_text_class(transformers.Qwen3Config()) is None
    assert family_of(transformers.Qwen3Config()).tower == ""


@pytest.mark.parametrize("name", ["Florence2Config", "Blip2Config", "GitConfig"])
def test_a_model_whose_pictures_are_no_tokens_of_the_text_is_refused_in_words(name: str) -> None:
    with pytest.raises(ConfigError, match="its pictures are not tokens among those of the text"):
        family_of(getattr(transformers, name)())


def test_a_type_without_a_processor_is_said_by_its_name() -> None:
    policy = tiny.student()
    config = policy.model.config
    config.model_type = "qwen2_7_vl"
    with pytest.raises(CheckpointError, match="model_type qwen2_7_vl, and no processor_class"):
        build_processor(config, None, policy.chat.tokenizer)
