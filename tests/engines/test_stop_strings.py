"""Responses that a text ends: in both ways to sample, on servers, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from engine_backends import client
from vllm_server import VllmServer
from vold.engines.samplers.draw import Draw
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.padded import padded
from vold.engines.samplers.refilled import refilled
from vold.engines.samplers.server import ServerSampler
from vold.errors import ConfigError, SamplerError
from vold.model.policy import Policy
from vold.training.traces import make_traces, read_traces
from vold.types import Completion, Prompt, SamplingParams


def asked(policy: Policy) -> list[Prompt]:
    return [policy.chat.prompt(t.messages) for t in tiny.opened(tiny.TASKS["train"])[:4]]


def plain_rows(policy: Policy) -> list[Completion]:
    return [c for g in InProcessSampler(policy).generate(asked(policy), SamplingParams(16, seed=2), 2) for c in g]


def stop_of(policy: Policy) -> str:
    """The text of the sixth token of the first row, which several rows then hold at places of their own."""
    first = plain_rows(policy)[0]
    return policy.chat.text(first.ids[:6])[len(policy.chat.text(first.ids[:5])) :]


def cut_by_hand(policy: Policy, c: Completion, stop: str) -> tuple[list[int], str]:
    """Read anew after each token."""
    for end in range(1, len(c.ids) + 1):
        if stop in policy.chat.text(c.ids[:end]):
            return c.ids[:end].tolist(), "stop"
    return c.ids.tolist(), c.finish


@pytest.mark.parametrize("way", [padded, refilled])
@pytest.mark.parametrize("slots", [8, 3])
def test_a_response_ends_with_the_token_that_completes_the_text(way: Any, slots: int) -> None:
    """Each row is the one without the stop string up to there: random numbers go by row and place."""
    policy = tiny.teacher()
    policy.model.eval()
    stop, plain = stop_of(policy), plain_rows(policy)
    numbers = torch.rand((8, 16), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    handed = iter(range(8))

    def uniforms(rows: int) -> torch.Tensor:
        return torch.stack([numbers[next(handed)] for _ in range(rows)])

    params = SamplingParams(16, seed=2, stop=(stop,))
    found = dict(way(policy, Draw(policy, params), asked(policy), 2, slots, uniforms))
    expected = [cut_by_hand(policy, c, stop) for c in plain]
    assert [(found[i].ids.tolist(), found[i].finish) for i in range(8)] == expected
    lengths = [len(ids) for ids, _ in expected]
    assert len(set(lengths)) > 1 and lengths != [len(c.ids) for c in plain]
    for i, c in enumerate(plain):
        assert found[i].logps.tolist() == pytest.approx(c.logps[: len(found[i].ids)].tolist(), abs=1e-5)


def test_a_text_of_several_tokens_is_found_where_it_is_whole() -> None:
    policy = tiny.teacher()
    row = plain_rows(policy)[0]
    whole = policy.chat.text(row.ids)
    draw = Draw(policy, SamplingParams(16, stop=("never there", whole[3:20])))
    ends = [draw.stopped(row.ids[:n], 1) for n in range(1, len(row.ids) + 1)]
    place = next(n for n in range(1, len(row.ids) + 1) if whole[3:20] in policy.chat.text(row.ids[:n]))
    assert ends.index(place) == place - 1 and not any(ends[: place - 1])
    assert draw.stopped(row.ids, len(row.ids)) == place
    assert Draw(policy, SamplingParams(16)).stopped(row.ids, len(row.ids)) is None


def test_a_server_ends_them_the_same_way() -> None:
    policy = tiny.teacher()
    stop = stop_of(policy)
    with VllmServer(policy) as server:
        sampler = ServerSampler(client(server.url, role="rollout"), end_id=policy.chat.end_id)
        done = sampler.generate(asked(policy), SamplingParams(16, seed=2, stop=(stop,)), 2)
        cut = [c for g in done for c in g if stop in policy.chat.text(c.ids)]
        assert cut and all(c.finish == "stop" and stop not in policy.chat.text(c.ids[:-1]) for c in cut)
        assert any(c.ids[-1] != policy.chat.end_id for c in cut)
        # one that was not asked for is a response cut short
        server.hook = lambda path, body: body.update(stop=[stop]) if path == "/v1/completions" else None
        with pytest.raises(SamplerError, match="cut a response short"):
            sampler.generate(asked(policy), SamplingParams(16, seed=2), 2)


def test_a_trace_that_a_text_ends_gets_the_end_token_to_learn_from(tmp_path: Path) -> None:
    policy = tiny.teacher()
    stop = stop_of(policy)
    made = tiny.recipe(tmp_path, traces={"sampling": {"max_new_tokens": 40, "stop": [stop]}})
    make_traces(made)
    traces = read_traces(made)
    cut = [t for t in traces if stop in policy.chat.text(t.response_ids)]
    assert cut
    for trace in cut:
        whole, shorter = (policy.chat.text(trace.response_ids[:end]) for end in (-1, -2))
        assert trace.response_ids[-1] == policy.chat.end_id and stop in whole and stop not in shorter


def test_between_turns_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="between turns"):
        tiny.recipe(
            tmp_path, traces={"sampling": {"max_new_tokens": 24, "stop": ["</a>"]}}, environment={"kind": "python"}
        )
    for wrong in ([""], []):
        with pytest.raises(ConfigError):
            tiny.recipe(tmp_path, traces={"sampling": {"max_new_tokens": 24, "stop": wrong}})
