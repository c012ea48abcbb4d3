"""Rows that are refilled from a static cache are those of padded batches, and the model's own distribution."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers import decoder, refilled
from vold.engines.samplers.decoder import Decoder
from vold.engines.samplers.inprocess import InProcessSampler
from vold.errors import ConfigError, Diverged
from vold.model.batching import collate
from vold.model.policy import Policy
from vold.types import Completion, Prompt, SamplingParams


def prompts_of(policy: Policy, n: int = 9) -> list[Prompt]:
    """Texts and pictures in turn, of several lengths."""
    sets = [DigitTasks("test", form, n, 4) for form in ("text", "image")]
    return [policy.chat.prompt(s[i].messages) for i in range(n) for s in sets]


def sure(policy: Policy, factor: float = 4) -> None:
    """Make an untrained model prefer some ids, others in other places."""
    with torch.no_grad():
        for p in policy.model.base_model.language_model.parameters():
            if p.dim() > 1:
                p.mul_(factor)


def allow(policy: Policy, ids: list[int]) -> None:
    policy.banned = torch.tensor([i for i in range(policy.rows) if i not in ids])


def said(groups: list[list[Completion]]) -> list[list[tuple[list[int], str]]]:
    return [[(c.ids.tolist(), c.finish) for c in group] for group in groups]


@pytest.mark.parametrize(("temperature", "n", "chunk"), [(0.0, 1, 1), (1.0, 3, 1), (0.7, 5, 16), (0.0, 2, 16)])
def test_tokens_are_those_of_padded_batches(
    temperature: float, n: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoder.CHUNK, "cpu", chunk)
    policy = tiny.student()
    sure(policy)
    prompts = prompts_of(policy)
    params = SamplingParams(24, temperature, 5, candidates=3)
    if temperature == 0:  # an id that ends responses at several places
        whole = [c.ids.tolist() for (c,) in InProcessSampler(policy).generate(prompts, params)]
        places = {i: {ids.index(i) for ids in whole if i in ids} for i in range(policy.rows)}
        some = [i for i in places if not all(i in ids for ids in whole)]
        policy.chat.tokenizer.eos_token_id = max(some, key=lambda i: len(places[i]))
    made = InProcessSampler(policy, batch_size=7).generate(prompts, params, n)
    assert {c.finish for g in made for c in g} == {"stop", "length"}
    assert len({len(c.ids) for g in made for c in g}) >= 3
    monkeypatch.setattr(policy, "packs", False)
    padded = InProcessSampler(policy, batch_size=64).generate(prompts, params, n)
    assert said(made) == said(padded)
    for ours, theirs in zip(itertools.chain(*made), itertools.chain(*padded), strict=True):
        torch.testing.assert_close(torch.tensor(ours.logps), torch.tensor(theirs.logps), rtol=0, atol=1e-5)
        assert ours.candidate_ids is not None and theirs.candidate_ids is not None
        assert ours.candidate_ids.tolist() == theirs.candidate_ids.tolist()


def test_log_probs_are_those_of_a_full_pass_after_refills() -> None:
    policy = tiny.student()
    sure(policy)
    policy.model.eval()
    prompts = prompts_of(policy)
    done = [c for (c,) in InProcessSampler(policy, batch_size=4).generate(prompts, SamplingParams(40, 0.8, 3))]
    batch = collate(prompts, [c.ids for c in done], [c.action_mask for c in done], policy.chat.pad_id)
    with torch.no_grad():
        logp, _, _ = policy.logprobs(batch, temperature=0.8)
    got = torch.tensor([v for c in done for v in c.logps])
    torch.testing.assert_close(got, logp, rtol=0, atol=1e-5)


def chances(policy: Policy, prompt: Prompt, allowed: list[int], tokens: int) -> dict[tuple[int, ...], float]:
    """The exact probability of every response, by plain passes over all of them in float64."""
    end, out = policy.chat.end_id, dict[tuple[int, ...], float]()
    open_: dict[tuple[int, ...], float] = {(): 1.0}
    model = policy.model.double()
    for _ in range(tokens):
        further: dict[tuple[int, ...], float] = {}
        for sofar, p in open_.items():
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt.ids, *sofar]])).logits[0, -1, allowed]
            for i, q in zip(allowed, logits.softmax(-1).tolist(), strict=True):
                (out if i == end else further)[*sofar, i] = p * q
        open_ = further
    policy.model.float()
    return out | open_


def test_responses_come_as_often_as_their_probabilities_say() -> None:
    """Of four ids, one of which ends a response, in three places: 3 + 3 * 3 * 3 + ... = 40 responses, and 3,000 rows
    of which 50 are side by side. Pearson's statistic must be below what one in a thousand samples exceeds."""
    policy, n = tiny.student(), 3000
    sure(policy, 2)
    policy.model.eval()
    (prompt,) = prompts_of(policy, 1)[:1]
    allowed = [20, 47, 83, policy.chat.end_id]
    expected = chances(policy, prompt, allowed, 3)
    assert sum(expected.values()) == pytest.approx(1) and len(expected) == 27 + 9 + 3 + 1
    allow(policy, allowed)
    (rows,) = InProcessSampler(policy, batch_size=50).generate([prompt], SamplingParams(3, 1.0, 2), n)
    found = Counter(tuple(c.ids.tolist()) for c in rows)
    assert set(found) <= set(expected)
    often = {r: p * n for r, p in expected.items() if p * n >= 5}
    rare = n - sum(often.values())
    statistic = sum((found[r] - e) ** 2 / e for r, e in often.items())
    statistic += (n - sum(found[r] for r in often) - rare) ** 2 / max(rare, 1e-9)
    assert len(often) > 20
    assert statistic < chi2.ppf(0.999, len(often))


def test_no_row_waits_for_another_and_no_token_passes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token of a row is not passed on: nothing is drawn after it."""
    policy = tiny.student()
    allow(policy, [policy.chat.end_id, *range(20, 35)])
    prompts, passed = [policy.chat.prompt(t.messages) for t in tiny.opened(tiny.TASKS["text"])], list[int]()
    forward = Decoder.forward

    def counted(self: Decoder) -> None:
        passed.append(self.live)
        forward(self)

    monkeypatch.setattr(Decoder, "forward", counted)
    done = InProcessSampler(policy, batch_size=8).generate(prompts, SamplingParams(60, 1.0, 2), 8)
    lengths = [len(c.ids) for g in done for c in g]
    assert sum(passed) == sum(lengths) - len(lengths)
    in_turns = sum(max(lengths[i : i + 8]) for i in range(0, len(lengths), 8))
    assert len(passed) < in_turns / 2


def test_a_cache_is_neither_joined_nor_repeated() -> None:
    """No operator makes anything of the cache's size: not a longer one, and not keys for the heads that share them."""
    policy = tiny.student()  # two heads share a key
    policy.chat.tokenizer.eos_token_id = int(policy.banned[0])  # never comes
    seen: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
                seen.append(0 if out.untyped_storage().data_ptr() in given else out.nbytes)
            return out

    counts, rows, prompt = [], 64, Prompt(tuple(range(20, 60)))
    for tokens in (20, 40):
        seen.clear()
        watch: Any = Watch()  # type: ignore[no-untyped-call]
        with watch:
            InProcessSampler(policy).generate([prompt], SamplingParams(tokens, 1.0, 5), rows)
        counts.append(len(seen))
        keys = rows * 8 * (len(prompt.ids) + tokens) * 4  # one head of width 8, float32
        assert sum(size >= keys for size in seen) == 2 * 2  # keys and values of two layers, once
    assert counts[1] - counts[0] < 20 * 210  # 90 in each of the layers, and 30


def test_prompts_of_a_pass_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prompts of 11 to 16 tokens two fit into 40; a longer one passes alone."""
    monkeypatch.setattr(refilled, "PROMPT_TOKENS", 40)
    policy, read = tiny.student(), list[list[int]]()
    plain = Decoder.read

    def counted(self: Decoder, prompts: Any, rows: Any, uniforms: torch.Tensor) -> None:
        read.append([len(p.ids) for p in prompts])
        plain(self, prompts, rows, uniforms)

    prompts = [Prompt(tuple(range(10, 10 + n))) for n in (11, 16, 16, 50, 12, 11)]
    whole = InProcessSampler(policy).generate(prompts, SamplingParams(5, 1.0, 5), 2)
    monkeypatch.setattr(Decoder, "read", counted)
    assert said(InProcessSampler(policy).generate(prompts, SamplingParams(5, 1.0, 5), 2)) == said(whole)
    assert read == [[11, 16], [16], [50], [12, 11]]


def test_more_rows_of_a_prompt_than_slots() -> None:
    policy = tiny.student()
    prompts = prompts_of(policy, 1)
    few = InProcessSampler(policy, batch_size=3).generate(prompts, SamplingParams(9, 1.0, 5), 8)
    assert said(few) == said(InProcessSampler(policy).generate(prompts, SamplingParams(9, 1.0, 5), 8))


def test_groups_are_handed_over_as_they_are_whole_and_rows_keep_their_numbers() -> None:
    policy = tiny.student()
    sure(policy)
    prompts, heard = prompts_of(policy), list[int]()
    sampler, params = InProcessSampler(policy, batch_size=6), SamplingParams(30, 1.0, 7)
    made = sampler.stream(prompts, params, 2, lambda place, group: heard.append(place))
    assert sorted(heard) == list(range(len(prompts)))
    for start in (4, 11):  # a share of the rows, or what is left after a kill
        rest = sampler.generate(prompts[start:], dataclasses.replace(params, first_row=2 * start), 2)
        assert said(rest) == said(made[start:])


@pytest.mark.parametrize("packs", [True, False])
def test_a_distribution_that_is_not_finite_and_too_many_candidates_are_refused(packs: bool) -> None:
    policy = tiny.student()
    policy.packs = packs
    with pytest.raises(ConfigError, match="more candidates"):
        InProcessSampler(policy).generate(prompts_of(policy, 1), SamplingParams(3, 1.0, 5, candidates=policy.rows))
    with torch.no_grad():
        policy.model.lm_head.weight[20] = float("nan")
    with pytest.raises(Diverged, match="not finite"):
        InProcessSampler(policy).generate(prompts_of(policy, 1), SamplingParams(3, 1.0, 5))
