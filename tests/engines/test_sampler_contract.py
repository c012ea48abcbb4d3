"""What every sampler must do, whatever it runs on."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from engine_backends import RealVllm, client, text_model
from vllm_server import VllmServer
from vold.engines.samplers.colocated import ColocatedVllm, ColocatedWeights
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler
from vold.engines.transfer.weights import ServerWeights
from vold.engines.vllm import VllmClient
from vold.model.batching import collate
from vold.model.policy import Policy
from vold.run.model_sections import RolloutServer
from vold.types import Completion, Prompt, Sampler, SamplingParams

PROMPTS = [Prompt((20, 21, 22)), Prompt((50, 60, 70, 80, 90)), Prompt((33,))]


@dataclass
class Backend:
    """A sampler of `policy`; `changed` tells it that the policy's weights are others now."""

    policy: Policy
    sampler: Sampler
    changed: Callable[[], None]


def on_servers(policy: Policy, servers: VllmClient, directory: Path) -> Backend:
    weights = ServerWeights(servers, policy, directory)
    sampler = ServerSampler(servers, end_id=policy.chat.end_id, banned=policy.banned.tolist(), weights=weights)
    steps = iter(range(1, 1000))
    return Backend(policy, sampler, lambda: weights.changed(next(steps)))


@functools.cache
def colocated(directory: Path) -> ColocatedVllm:
    """One for all tests: it takes half a minute to start."""
    return ColocatedVllm(
        text_model(4, padded_rows=3), directory, RolloutServer(colocate=True, memory=0.15, context=128)
    )


IN_THIS_PROCESS = ["colocated"] if importlib.util.find_spec("vllm") else []
"""Where vLLM is in this environment: test_vllm_colocated.py starts this file in such a one."""


@pytest.fixture(
    params=["in-process", "server", "two servers", pytest.param("vllm", marks=pytest.mark.engines), *IN_THIS_PROCESS],
)
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    policy = text_model(3, padded_rows=3)
    other = text_model(4, padded_rows=3)  # what servers hold before they get the student's weights
    if request.param == "in-process":
        yield Backend(policy, InProcessSampler(policy), lambda: None)
    elif request.param == "colocated":
        engine = colocated(tmp_path_factory.getbasetemp() / "colocated")
        weights = ColocatedWeights(engine, policy)
        sampler = ServerSampler(engine, end_id=policy.chat.end_id, banned=policy.banned.tolist(), weights=weights)
        yield Backend(policy, sampler, lambda: weights.changed(1))
    elif request.param == "vllm":
        server: RealVllm = request.getfixturevalue("vllm_rollouts")
        yield on_servers(policy, client(server.url, role="rollout", patience=120), tmp_path / "weights")
    else:
        with VllmServer(other) as one, VllmServer(other) as two:
            urls = [one.url, two.url] if request.param == "two servers" else [one.url]
            yield on_servers(policy, client(*urls, role="rollout"), tmp_path / "weights")


def every_logp(policy: Policy, prompt: Prompt, c: Completion, temperature: float) -> torch.Tensor:
    """[response, ids] log-probs in float64 from a plain forward pass, over the ids that may be sampled."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[*prompt.ids, *c.ids]])).logits[0].double() / temperature
    logp: torch.Tensor = logits.index_fill(-1, policy.banned, float("-inf")).log_softmax(-1)
    return logp[len(prompt.ids) - 1 : -1]


def teacher_forced(policy: Policy, prompt: Prompt, c: Completion, temperature: float) -> torch.Tensor:
    """[response] those of the response's own ids."""
    return every_logp(policy, prompt, c, temperature).gather(-1, torch.tensor(c.ids.tolist())[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_behaviour_log_probs_are_the_students_own_at_the_sampling_temperature(
    backend: Backend, temperature: float
) -> None:
    groups = backend.sampler.generate(PROMPTS, SamplingParams(12, temperature, 5), n=2)
    assert [len(g) for g in groups] == [2, 2, 2]
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for c in group:
            assert len(c.ids) == len(c.logps) == len(c.action_mask) <= 12
            assert set(c.action_mask) == {1}
            assert (c.finish == "stop") == (c.ids[-1] == backend.policy.chat.end_id)
            assert backend.policy.chat.end_id not in c.ids[:-1]
            got = torch.tensor(c.logps, dtype=torch.float64)
            torch.testing.assert_close(got, teacher_forced(backend.policy, prompt, c, temperature), rtol=0, atol=5e-5)


def test_the_seed_decides_and_rows_differ(backend: Backend) -> None:
    def rows(seed: int) -> list[tuple[int, ...]]:
        return [
            tuple(c.ids.tolist())
            for g in backend.sampler.generate(PROMPTS, SamplingParams(12, 1.0, seed), n=3)
            for c in g
        ]

    assert rows(7) == rows(7)
    assert rows(7) != rows(8)
    assert len(set(rows(7))) == 9


def test_greedy_takes_the_likeliest_token(backend: Backend) -> None:
    for prompt, (c,) in zip(PROMPTS, backend.sampler.generate(PROMPTS, SamplingParams(8, 0.0, 1)), strict=True):
        ids = list(prompt.ids)
        for token in c.ids:
            with torch.no_grad():
                logits = backend.policy.model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert token == int(logits.index_fill(-1, backend.policy.banned, float("-inf")).argmax())
            ids.append(token)


def test_ruled_out_ids_never_come_even_when_the_model_wants_them(backend: Backend) -> None:
    with torch.no_grad():
        backend.policy.model.get_output_embeddings().weight[backend.policy.banned] *= 20
    backend.changed()
    done = backend.sampler.generate(PROMPTS, SamplingParams(20, 1.0, 3), n=4)
    sampled = {i for g in done for c in g for i in c.ids}
    assert sampled
    assert not sampled & set(backend.policy.banned.tolist())
    for prompt, group in zip(PROMPTS, done, strict=True):
        for c in group:
            expected = teacher_forced(backend.policy, prompt, c, 1.0)
            torch.testing.assert_close(torch.tensor(c.logps).double(), expected, rtol=0, atol=5e-5)


def test_nothing_cuts_the_distribution_down(backend: Backend) -> None:
    """Over 400 first tokens the mean log-prob is minus the entropy, within five standard errors; a server's own top-p,
    top-k or penalty would raise it. The log-probs' own variance under the distribution gives the error."""
    prompt, n = PROMPTS[0], 400
    with torch.no_grad():
        logits = backend.policy.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].double()
    logp = logits.index_fill(-1, backend.policy.banned, float("-inf")).log_softmax(-1)
    p = logp.exp()
    logp = logp.masked_fill(p == 0, 0.0)
    mean = float((p * logp).sum())
    spread = math.sqrt(float((p * logp**2).sum()) - mean**2)
    groups = backend.sampler.generate([prompt] * (n // 10), SamplingParams(1, 1.0, 11), n=10)
    got = [c.logps[0] for g in groups for c in g]
    assert abs(sum(got) / n - mean) < 5 * spread / math.sqrt(n)
    tail = float(p[p < 0.01].sum())
    seen = sum(float(p[c.ids[0]]) < 0.01 for g in groups for c in g) / n
    assert tail > 0.05
    assert abs(seen - tail) < 5 * math.sqrt(tail * (1 - tail) / n)


def test_new_weights_are_sampled_from(backend: Backend) -> None:
    before = backend.sampler.generate(PROMPTS, SamplingParams(12, 1.0, 5))
    with torch.no_grad():
        for parameter in backend.policy.model.parameters():
            parameter.mul_(1.5)
    backend.changed()
    for prompt, (c,), (old,) in zip(
        PROMPTS, backend.sampler.generate(PROMPTS, SamplingParams(12, 1.0, 5)), before, strict=True
    ):
        expected = teacher_forced(backend.policy, prompt, c, 1.0)
        torch.testing.assert_close(torch.tensor(c.logps).double(), expected, rtol=0, atol=1e-4)
        assert c.logps[0] != pytest.approx(old.logps[0], abs=1e-3)


def test_the_training_pass_agrees_with_the_behaviour_log_probs(backend: Backend) -> None:
    groups = backend.sampler.generate(PROMPTS, SamplingParams(12, 1.0, 5), n=2)
    rows = [(p, c) for p, g in zip(PROMPTS, groups, strict=True) for c in g]
    batch = collate([p for p, _ in rows], [c.ids for _, c in rows], [c.action_mask for _, c in rows], 0)
    with torch.no_grad():
        logp, _, _ = backend.policy.logprobs(batch)
    torch.testing.assert_close(logp, torch.tensor([v for _, c in rows for v in c.logps]), rtol=0, atol=5e-5)


def test_the_likeliest_ids_come_with_every_token(backend: Backend) -> None:
    groups = backend.sampler.generate(PROMPTS, SamplingParams(6, 0.7, 5, candidates=3), n=2)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for c in group:
            with torch.no_grad():
                logits = backend.policy.model(input_ids=torch.tensor([[*prompt.ids, *c.ids]])).logits[0]
            allowed = logits.index_fill(-1, backend.policy.banned, float("-inf"))[len(prompt.ids) - 1 : -1]
            assert c.candidate_ids is not None and c.candidate_ids.dtype == "int32"
            assert c.candidate_ids.tolist() == allowed.topk(3).indices.tolist()


@pytest.mark.parametrize(("k", "p", "least"), [(4, 1.0, 0.0), (12, 0.6, 0.0), (12, 1.0, 0.4), (12, 0.8, 0.3)])
def test_truncated_responses_come_with_the_ids_that_were_kept(backend: Backend, k: int, p: float, least: float) -> None:
    """The kept ids are those that the rule gives, and log-probs are of the distribution over them."""
    params = SamplingParams(8, 1.0, seed=5, top_p=p, top_k=k, min_p=least, kept=k)
    for prompt, group in zip(PROMPTS, backend.sampler.generate(PROMPTS, params, n=3), strict=True):
        for c in group:
            assert c.support_ids is not None
            full = every_logp(backend.policy, prompt, c, 1.0)
            for token, logp, kept, row in zip(c.ids, c.logps, c.support_ids, full, strict=True):
                ids = [int(i) for i in kept if i >= 0]
                assert int(token) in ids and ids == allowed(row, k, p, least)
                assert float(logp) == pytest.approx(float(row[token] - row[ids].logsumexp(0)), abs=2e-3)


def allowed(logp: torch.Tensor, top_k: int, top_p: float, min_p: float) -> list[int]:
    """The rule written down again, an id at a time."""
    order = logp.argsort(descending=True).tolist()[:top_k]
    order = [i for i in order if logp[i].exp() >= min_p * logp[order[0]].exp()]
    whole = float(logp[order].exp().sum())
    kept, mass = [], 0.0
    while order and mass < top_p * whole * (1 - 1e-9):
        kept.append(order.pop(0))
        mass += float(logp[kept[-1]].exp())
    return kept


def test_a_response_ends_with_the_token_that_completes_a_text(backend: Backend) -> None:
    """The text of the third token of a greedy response, or all of it up to there where that came before."""
    text = backend.policy.chat.text
    ((plain,),) = backend.sampler.generate(PROMPTS[:1], SamplingParams(8, 0.0, 1))
    stop = text(plain.ids[:3])
    assert stop
    ((c,),) = backend.sampler.generate(PROMPTS[:1], SamplingParams(8, 0.0, 1, stop=("never there", stop)))
    end = next(n for n in range(1, 9) if stop in text(plain.ids[:n]))
    assert (c.ids.tolist(), c.finish) == (plain.ids[:end].tolist(), "stop")
    assert c.logps.tolist() == pytest.approx(plain.logps[:end].tolist(), abs=1e-3)
