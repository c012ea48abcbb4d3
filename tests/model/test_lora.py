"""Adapters, activation checkpointing and bfloat16 weights: what is trained, and what a run leaves behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

import tiny
from families import STUDENTS, batch_of, forms, with_adapters
from killed import interrupted_at_update
from vold.model.families import part_of
from vold.model.lora import ADAPTER
from vold.model.policy import Policy
from vold.model.recompute import Kept, checkpoint_layers
from vold.training.distill import distill
from vold.training.sft import sft

every = pytest.mark.parametrize("name", STUDENTS)


@every
def test_new_adapters_change_nothing_and_are_all_that_is_trained(name: str) -> None:
    policy = STUDENTS[name]()
    policy.freeze(["vision", "projector"] if policy.is_vlm else [])
    policy.model.eval()
    with torch.no_grad():
        before = policy.logprobs(batch_of(policy, "text"))[0]
        after = with_adapters(policy, moved=False).logprobs(batch_of(policy, "text"))[0]
    assert torch.equal(before, after)
    text = policy.model.config.get_text_config()
    width, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    keys = text.num_key_value_heads * 8  # heads are 8 wide in all these models
    pairs = [
        (width, width),
        (width, keys),
        (width, keys),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]
    assert sum(p.numel() for _, p in policy.trainable()) == layers * sum(2 * (a + b) for a, b in pairs)
    assert all("lora_" in n for n, _ in policy.trainable())


@every
def test_adapters_get_gradients_and_a_projector_that_is_not_frozen_does_too(name: str) -> None:
    policy = STUDENTS[name]()
    policy.freeze(["vision"] if policy.is_vlm else [])
    with_adapters(policy).model.train()
    policy.logprobs(batch_of(policy, forms(policy)[-1]))[0].sum().backward()
    for n, p in policy.model.named_parameters():
        projector = part_of(n.removeprefix("model."), policy.family) == "projector"
        assert p.requires_grad == ("lora_" in n or projector), n
        assert (p.grad is not None and bool(p.grad.any())) == p.requires_grad, n


@every
def test_saved_adapters_are_merged_and_kept_beside(name: str, tmp_path: Path) -> None:
    STUDENTS[name]().save(tmp_path / "base")
    policy = with_adapters(Policy.load(str(tmp_path / "base")))
    policy.save(tmp_path / "tuned")
    merged = Policy.load(str(tmp_path / "tuned"))
    merged.model.eval()
    assert merged.adapters is None
    assert not any("lora_" in n for n, _ in merged.model.named_parameters())
    beside = Policy.load(str(tmp_path / "base"))
    plain = beside.logprobs(batch_of(beside, "text"))[0]
    PeftModel.from_pretrained(beside.model, str(tmp_path / "tuned" / ADAPTER)).eval()
    for form in forms(policy):
        batch = batch_of(policy, form)
        with torch.no_grad():
            tuned = policy.logprobs(batch)[0]
            torch.testing.assert_close(merged.logprobs(batch)[0], tuned, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(beside.logprobs(batch)[0], tuned, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, policy.logprobs(batch_of(policy, "text"))[0], atol=1e-2)


def test_adapters_of_a_bfloat16_model_are_float32_and_its_merge_is_bfloat16(tmp_path: Path) -> None:
    policy = with_adapters(Policy(tiny.student().model.bfloat16(), tiny.student().chat))
    assert {p.dtype for _, p in policy.trainable() if "lora_" in _} == {torch.float32}
    policy.save(tmp_path)
    again = Policy.load(str(tmp_path), dtype="bfloat16")
    with torch.no_grad():
        got, expected = (p.logprobs(batch_of(p, "text"))[0] for p in (again, policy))
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)
    assert {p.dtype for p in again.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("student", [{"lora": {"rank": 2}}, {"dtype": "bfloat16"}, {"activation_checkpointing": True}])
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(student: dict[str, Any], tmp_path: Path) -> None:
    recipes = []
    for home in (tmp_path / "whole", tmp_path / "broken"):
        recipes.append(tiny.recipe(home, student=student))
        tiny.write_traces(home, recipes[-1])
    for work in (sft, distill):
        finals = [work(recipes[0])]
        interrupted_at_update(4, partial(work, recipes[1]))
        finals.append(work(recipes[1]))
        first, second = ((final / "model.safetensors").read_bytes() for final in finals)
        assert first == second
        assert (finals[0] / ADAPTER / "adapter_model.safetensors").exists() == ("lora" in student)
        moved = Policy.load(str(finals[0])).model.state_dict()
        start = tiny.student().model.state_dict()
        changed = {n for n in start if not torch.equal(start[n].bfloat16(), moved[n].bfloat16())}
        assert changed
        assert not any("visual" in n for n in changed)


@every
@pytest.mark.parametrize("how", [True, "selective"])
def test_activation_checkpointing_changes_memory_and_not_the_gradient(name: str, how: Kept) -> None:
    policy = STUDENTS[name]()
    policy.model.train()
    batch = batch_of(policy, forms(policy)[-1])
    found = []
    for on in (False, True):
        if on:
            checkpoint_layers(policy.model, how)
        kept: dict[int, int] = {}

        def pack(t: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = t.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            logp, _, _ = policy.logprobs(batch)
        weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
        policy.model.zero_grad(set_to_none=True)
        logp.sum().backward()
        grads = {n: p.grad for n, p in policy.model.named_parameters()}
        found.append((logp.detach(), grads, sum(size for at, size in kept.items() if at not in weights)))
    (plain, plain_grads, much), (checkpointed, grads, little) = found
    assert torch.equal(plain, checkpointed)
    for n, g in plain_grads.items():
        torch.testing.assert_close(g, grads[n])
    assert little < 0.5 * much
