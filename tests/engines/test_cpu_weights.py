"""Weights in another layout are the same weights: to the model, to the sampler, and after an update."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import tiny
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers.cpu_weights import reordered_weights
from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.batching import collate
from vold.model.families import part_of
from vold.model.policy import Policy
from vold.types import Prompt, SamplingParams


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def prompts_of(policy: Policy) -> list[Prompt]:
    tasks = DigitTasks("test", "image", 4, 4)
    return [policy.chat.prompt(tasks[i].messages) for i in range(4)]


def changed(policy: Policy) -> set[str]:
    return {name for name, m in policy.model.named_modules() if "forward" in vars(m)}


@torch.no_grad()
def logits(policy: Policy) -> torch.Tensor:
    ids = torch.arange(5, 45).reshape(2, 20)
    out: torch.Tensor = policy.model(input_ids=ids).logits
    return out


@pytest.mark.usefixtures("threads")
def test_the_language_model_computes_the_same_and_the_vision_tower_is_left_alone() -> None:
    policy = tiny.student()
    policy.model.eval()
    plain = logits(policy)
    with reordered_weights(policy) as count:
        inside = changed(policy)
        torch.testing.assert_close(logits(policy), plain, rtol=1e-5, atol=1e-6)
    # Two layers of q, k, v, o, gate, up and down, and the head.
    assert count == len(inside) == 2 * 7 + 1
    assert not [n for n in inside if part_of(n.removeprefix("model."), policy.family)]
    assert not changed(policy)
    assert torch.equal(logits(policy), plain)


@pytest.mark.usefixtures("threads")
def test_rollouts_carry_the_log_probs_of_the_weights_as_they_are_now() -> None:
    policy = tiny.student()
    prompts = prompts_of(policy)
    for _ in range(2):
        done = [c for (c,) in InProcessSampler(policy).generate(prompts, SamplingParams(20, 1.0, 3))]
        batch = collate(prompts, [c.ids for c in done], [c.action_mask for c in done], policy.chat.pad_id)
        policy.model.eval()
        with torch.no_grad():
            logp, _, _ = policy.logprobs(batch)
        torch.testing.assert_close(torch.tensor([v for c in done for v in c.logps]), logp, rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # a copy of the old weights would answer for the old ones
            for _, p in policy.trainable():
                p.mul_(1.5)


@pytest.mark.usefixtures("threads")
def test_a_failure_inside_leaves_the_model_as_it_was() -> None:
    policy = tiny.student()
    with pytest.raises(KeyError), reordered_weights(policy):
        raise KeyError
    assert not changed(policy)


def test_nothing_is_done_where_nothing_is_gained(threads: None) -> None:
    low = tiny.student()
    low.model.bfloat16()
    with reordered_weights(low) as count:
        assert (count, changed(low)) == (0, set())
    torch.set_num_threads(1)
    policy = tiny.student()
    with reordered_weights(policy) as count:
        assert (count, changed(policy)) == (0, set())
