"""Certificates: healthy families are certified, and planted faults keep a model from what they spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import families
import tiny
import tiny_models
from vold.engines.samplers.inprocess import InProcessSampler
from vold.errors import CheckpointError, ConfigError, DataError
from vold.model import packing
from vold.model.certificate import certify, use
from vold.model.certified import certified
from vold.model.loading import load_student
from vold.model.policy import Policy
from vold.model.trial import ALSO, PLAIN, WAYS
from vold.run.lock import owning
from vold.types import Message, SamplingParams


def shown(policy: Policy) -> Any:
    return policy.chat.prompt([Message("user", "<image> sum ?", (Image.new("RGB", (16, 16), (9, 99, 200)),))])


@pytest.mark.parametrize("name", families.STUDENTS)
def test_healthy_families_are_certified_and_stay_as_they_were(name: str) -> None:
    policy = families.STUDENTS[name]()
    policy.model.train()
    before = {n: p.clone() for n, p in policy.model.named_parameters()}
    attention, state = packing.attention_of(policy.model), torch.get_rng_state()
    found = certify(policy, ALSO).found
    assert not any(found.values()), found
    ways = [way for way in WAYS if way != "rollouts" and (policy.is_vlm or way != "pictures")]
    assert {t for way in ways for t in WAYS[way]} <= set(found)
    assert all(torch.equal(p, before[n]) for n, p in policy.model.named_parameters())
    assert packing.attention_of(policy.model) == attention
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.model.training


def test_rows_that_leak_into_each_other_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(query: Any, key: Any, value: Any, packed: Any, window: Any, **kwargs: Any) -> torch.Tensor:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2)

    policy = tiny.student()
    monkeypatch.setattr(packing, "_row_by_row", leaking)
    certificate = certify(policy)
    assert "packed rows equal single rows: row" in certificate.why_not("packing")
    assert certificate.found["packed rows do not see each other"]
    assert not certificate.why_not("padded batches") + certificate.why_not("pictures")
    use(policy, certificate)
    assert not policy.packs
    assert policy.pads
    expected = tiny.student()
    expected.packs = False
    packing.set_attention(expected.plain_attention)
    batch = families.batch_of(policy, "image")
    assert torch.equal(policy.logprobs(batch)[0], expected.logprobs(batch)[0])  # the plain path, bit for bit


def test_a_state_that_runs_on_from_token_to_token_keeps_a_model_from_all_that_joins_rows() -> None:
    """What layers with a convolution do that knows neither the borders of packed rows nor a cache."""
    policy = families.STUDENTS["llama"]()
    layer = policy.model.model.layers[0]

    def mixed(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        before = torch.nn.functional.pad(args[0], (0, 0, 1, 0))[:, :-1]
        return (args[0] + 0.5 * before, *args[1:])

    layer.register_forward_pre_hook(mixed)
    use(policy, certificate := certify(policy))
    assert not certificate.found[PLAIN]
    assert not policy.packs
    assert certificate.found["packed rows do not see each other"]
    assert "cached decoding equals a full pass: differs by" in policy.mute
    with pytest.raises(ConfigError, match="cannot be sampled from"):
        InProcessSampler(policy).generate([families.prompts_of(policy, "text", 1)[0]], SamplingParams(2))
    assert not policy.pads  # rows that begin with padding take it in
    lengths = [3, 3]
    assert policy.micro_batches(families.prompts_of(policy, "text", 2), lengths, 10**6) == [[0], [1]]


def test_positions_that_are_counted_from_the_left_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = families.STUDENTS["qwen3"]()
    rotary = policy.model.model.rotary_emb
    stock = rotary.forward
    monkeypatch.setattr(rotary, "forward", lambda x, position_ids: stock(x, torch.arange(x.shape[1])[None]))
    use(policy, certificate := certify(policy))
    # A row of its own is only moved as a whole, which rotations do not see; a response behind a shared prompt is not.
    assert not certificate.why_not("packing")
    assert "a prompt equal single rows: row" in certificate.why_not("shared prompts")
    assert (policy.packs, policy.shares, policy.refills, policy.pads) == (True, False, False, False)
    assert policy.mute


def test_a_picture_that_changes_nothing_is_refused_and_text_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.student()
    images = policy.chat.processor.image_processor
    stock = images.preprocess
    monkeypatch.setattr(
        images,
        "preprocess",
        lambda *a, **k: (out := stock(*a, **k)).update(pixel_values=out["pixel_values"] * 0) or out,
    )
    use(policy, certify(policy))
    assert policy.packs
    with pytest.raises(DataError, match="two pictures give the same states"):
        shown(policy)
    assert policy.chat.prompt([Message("user", "digits 3 5 . sum ?")]).ids


def test_pictures_that_change_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.student()
    images = policy.chat.processor.image_processor
    stock = images.preprocess

    def turned(given: Any, *args: Any, **kwargs: Any) -> Any:
        out = stock(given, *args, **kwargs)
        counts = [int(g.prod()) for g in torch.as_tensor(out["image_grid_thw"])]
        if len(counts) > 1:
            out["pixel_values"] = torch.cat([*torch.as_tensor(out["pixel_values"]).split(counts)][::-1])
        return out

    monkeypatch.setattr(images, "preprocess", turned)
    assert "a picture is seen in its own place" in certify(policy).why_not("pictures")


def second_is_first(pixels: torch.Tensor, counts: list[int]) -> torch.Tensor:
    parts = list(pixels.split(counts))
    if len(parts) > 1:
        parts[1] = parts[0][torch.arange(counts[1]) % counts[0]]
    return torch.cat(parts)


def one_patch_on(pixels: torch.Tensor, counts: list[int]) -> torch.Tensor:
    return pixels.roll(1, 0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (second_is_first, "the picture changes the score: second of two pictures changes nothing"),
        (one_patch_on, "a picture is seen in its own place: the first of two, when the second changes"),
    ],
)
def test_pictures_that_are_dropped_or_shifted_are_refused(
    monkeypatch: pytest.MonkeyPatch, fault: Any, said: str
) -> None:
    policy = tiny.student()
    images = policy.chat.processor.image_processor
    stock = images.preprocess

    def spoilt(*args: Any, **kwargs: Any) -> Any:
        out = stock(*args, **kwargs)
        counts = [int(g.prod()) for g in torch.as_tensor(out["image_grid_thw"])]
        out["pixel_values"] = fault(torch.as_tensor(out["pixel_values"]), counts)
        return out

    monkeypatch.setattr(images, "preprocess", spoilt)
    certificate = certify(policy)
    assert said in certificate.why_not("pictures")
    assert not certificate.why_not("packing")
    use(policy, certificate)
    with pytest.raises(DataError, match="does not reach this model"):
        shown(policy)


def test_layers_that_are_computed_again_in_another_way_are_not_recomputed(tmp_path: Path) -> None:
    policy = families.STUDENTS["llama"]()

    def again(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        in_backward = torch._C._current_graph_task_id() != -1
        return (args[0] * (1.5 if in_backward else 1.0), *args[1:])

    policy.model.model.layers[1].mlp.register_forward_pre_hook(again)
    certificate = certify(policy, ALSO)
    assert "layers that are computed again" in certificate.why_not("activation checkpointing")
    assert [way for way, _ in certificate.not_used()] == ["activation checkpointing"]
    assert not policy.model.is_gradient_checkpointing


def test_a_model_without_linear_layers_in_its_blocks_gets_no_adapters(tmp_path: Path) -> None:
    policy = tiny_models.tiny_reader("gpt2")  # its products are called Conv1D
    assert "no linear layer" in certify(policy, ["adapters"]).why_not("adapters")
    policy.save(tmp_path / "student")
    wanted = tiny.recipe(tmp_path, student={"lora": {"rank": 2}, "freeze": []})
    with pytest.raises(ConfigError, match="no adapters can be trained"):
        load_student(wanted, train=True)


def test_a_model_that_is_not_what_transformers_makes_of_it_is_refused() -> None:
    policy = families.STUDENTS["llama"]()
    policy.model.forward = lambda *a, **k: _scaled(type(policy.model).forward(policy.model, *a, **k))
    with pytest.raises(CheckpointError, match="not what Transformers makes"):
        certify(policy)


def _scaled(output: Any) -> Any:
    output.logits = output.logits * 2
    return output


def test_a_run_keeps_its_certificate_and_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = families.STUDENTS["llama"]()
    certified(first, tmp_path)
    assert not list(tmp_path.iterdir())  # nobody is at work here
    with owning(tmp_path, "sft"):
        certified(first, tmp_path)
    file = tmp_path / "certificates.json"
    stored = json.loads(file.read_text())
    (name,) = stored["models"]
    assert name.startswith("llama float32 cpu")
    stored["models"][name]["packed rows do not see each other"] = "planted"
    file.write_text(json.dumps(stored))
    again = families.STUDENTS["llama"](seed=5)  # other weights, the same model
    monkeypatch.setattr("vold.model.certified.certify", None)
    certified(again, tmp_path)
    assert first.packs
    assert not again.packs
    monkeypatch.undo()
    other = families.STUDENTS["qwen3"]()
    with owning(tmp_path, "sft"):
        certified(other, tmp_path)
    assert other.packs
    assert len(json.loads(file.read_text())["models"]) == 2
    fresh = families.STUDENTS["llama"]()
    certified(fresh, None)
    assert fresh.packs
