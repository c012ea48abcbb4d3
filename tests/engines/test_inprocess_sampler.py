"""The in-process sampler: it must be the model's own distribution, whatever the batch looks like."""

from __future__ import annotations

import torch

import tiny
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers.draw import inverse_cdf
from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.batching import collate
from vold.model.policy import Policy
from vold.types import Prompt, SamplingParams


def prompts_of(policy: Policy, form: str, n: int = 6) -> list[Prompt]:
    tasks = DigitTasks("test", form, n, 4)  # type: ignore[arg-type]
    return [policy.chat.prompt(tasks[i].messages) for i in range(n)]


def test_behaviour_log_probs_are_those_of_a_full_forward_pass() -> None:
    policy = tiny.student()
    policy.model.eval()
    for form in ("text", "image"):
        prompts = prompts_of(policy, form)
        for temperature in (1.0, 0.7):
            done = InProcessSampler(policy).generate(prompts, SamplingParams(20, temperature, 3))
            completions = [c for (c,) in done]
            ids = [c.ids for c in completions]
            with torch.no_grad():
                batch = collate(prompts, ids, [c.action_mask for c in completions], policy.chat.pad_id)
                logp, _, _ = policy.logprobs(batch, temperature=temperature)
            got = torch.tensor([v for c in completions for v in c.logps])
            torch.testing.assert_close(got, logp, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_which_rows_finish_before_it() -> None:
    policy = tiny.student()
    prompts = prompts_of(policy, "text", 12)
    whole = InProcessSampler(policy, batch_size=64).generate(prompts, SamplingParams(30, 1.0, 9), n=3)
    parts = InProcessSampler(policy, batch_size=5).generate(prompts, SamplingParams(30, 1.0, 9), n=3)
    assert [[c.ids.tolist() for c in g] for g in whole] == [[c.ids.tolist() for c in g] for g in parts]
    assert len({len(c.ids) for g in whole for c in g}) > 1  # rows did finish at different times


def test_greedy_sampling_equals_transformers_generate() -> None:
    policy = tiny.student()
    policy.model.eval()
    for form in ("text", "image"):
        for prompt in prompts_of(policy, form, 3):
            ((ours,),) = InProcessSampler(policy).generate([prompt], SamplingParams(10, 0.0))
            ids = torch.tensor([prompt.ids])
            kinds = (ids == policy.model.config.image_token_id).int()
            theirs = policy.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=kinds,
                max_new_tokens=10,
                do_sample=False,
                suppress_tokens=policy.banned.tolist(),
                **prompt.vision,
            )[0, len(prompt.ids) :]
            assert list(ours.ids) == theirs.tolist()[: len(ours.ids)]


def test_banned_ids_are_never_sampled_even_when_the_model_wants_them() -> None:
    policy = tiny.student()
    with torch.no_grad():
        policy.model.lm_head.weight[policy.banned] *= 50
    done = InProcessSampler(policy).generate(prompts_of(policy, "text"), SamplingParams(40, 1.5, 1), n=4)
    sampled = {i for group in done for c in group for i in c.ids}
    assert sampled
    assert not sampled & set(policy.banned.tolist())


def test_finish_says_whether_the_end_token_came() -> None:
    policy = tiny.student()
    done = [
        c
        for g in InProcessSampler(policy).generate(prompts_of(policy, "text"), SamplingParams(60, 1.0, 2), n=8)
        for c in g
    ]
    assert {c.finish for c in done} == {"stop", "length"}
    for c in done:
        assert len(c.ids) == len(c.logps) == len(c.action_mask)
        assert (c.ids[-1] == policy.chat.end_id) == (c.finish == "stop")
        assert policy.chat.end_id not in c.ids[:-1]
        assert c.finish == "stop" or len(c.ids) == 60


def test_inverse_cdf_picks_the_slice_that_holds_the_number() -> None:
    logp = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().repeat(5, 1)
    uniform = torch.tensor([0.0, 0.19, 0.2, 0.69, 0.99], dtype=torch.float64)
    assert inverse_cdf(logp, uniform).tolist() == [0, 0, 2, 2, 3]


def test_sampled_frequencies_follow_the_distribution() -> None:
    policy = tiny.student()
    policy.model.eval()
    (prompt,) = prompts_of(policy, "text", 1)
    n = 4000
    (done,) = InProcessSampler(policy, batch_size=n).generate([prompt], SamplingParams(1, 1.0, 5), n=n)
    counts = torch.bincount(torch.tensor([c.ids[0] for c in done]), minlength=108).double() / n
    with torch.no_grad():
        ids = torch.tensor([prompt.ids])
        logits = policy.model(input_ids=ids).logits[0, -1].double()
    logits[policy.banned] = float("-inf")
    probs = logits.softmax(-1)
    error = (counts - probs).abs() / (probs * (1 - probs) / n).sqrt().clamp(min=1e-9)
    assert float(error[probs > 0].max()) < 5  # standard errors
