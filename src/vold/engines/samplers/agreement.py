"""Whether log-probs at sampling are those of training, tried with the sampler that a run would use in its process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.batching import collate
from vold.model.packing import attention_of
from vold.model.trial import Trial
from vold.types import SamplingParams

if TYPE_CHECKING:
    from vold.model.policy import Policy

TOKENS = 4
"""Of a response."""
EACH = 2
"""Responses of a prompt."""


def sampler_differs(policy: Policy) -> str:
    """How far the log-probs of sampled tokens are from those of a training pass; empty where they agree, as closely as
    a certificate wants states to."""
    trial = Trial(policy, attention_of(policy.model))
    prompts = [p for i, (p, _) in enumerate(trial.rows) if i != 2]  # the third row has the first one's
    groups = InProcessSampler(policy).generate(prompts, SamplingParams(TOKENS, 1.0, seed=1), EACH)
    rows = [(prompt, made) for prompt, group in zip(prompts, groups, strict=True) for made in group]
    asked, responses = [p for p, _ in rows], [m.ids for _, m in rows]
    batch = collate(asked, responses, [m.action_mask for _, m in rows], policy.chat.pad_id)
    with torch.no_grad():
        ours = policy.logprobs(batch)[0].float().cpu()
    theirs = torch.cat([torch.tensor(m.logps) for _, m in rows])
    off = float((ours - theirs).abs().mean())
    return "" if off <= trial.near else f"differs by {off:.2g} nats a token, limit {trial.near:g}"
