"""Rows of one padded batch, with the cache that Transformers gives the model: for models that cannot do better."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from vold.model.decoding import Cached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vold.engines.samplers.draw import Draw
    from vold.model.policy import Policy
    from vold.types import Completion, Prompt

COMPACT_BELOW = 0.75
"""Rows are dropped from the cache when fewer than this share of them still generate."""


@torch.inference_mode()
def padded(
    policy: Policy, draw: Draw, prompts: Sequence[Prompt], n: int, slots: int, uniforms: Callable[[int], torch.Tensor]
) -> Iterator[tuple[int, Completion]]:
    """As `vold.engines.samplers.refilled.refilled`, for any policy; rows start `slots` at a time, and when the last of
    them has ended so do the next."""
    rows = [p for p in prompts for _ in range(n)]
    for start in range(0, len(rows), slots):
        part = rows[start : start + slots]
        yield from enumerate(_batch(policy, draw, part, uniforms(len(part)).to(policy.model.device)), start)


def _batch(policy: Policy, draw: Draw, prompts: Sequence[Prompt], uniforms: torch.Tensor) -> list[Completion]:
    device = policy.model.device
    firsts = [i for i, p in enumerate(prompts) if not i or p is not prompts[i - 1]]
    repeats = torch.tensor([b - a for a, b in itertools.pairwise([*firsts, len(prompts)])], device=device)
    asked = [prompts[i] for i in firsts]  # a prompt that rows share is read once, and its cache copied
    cached = Cached(policy, asked)
    if len(asked) < len(prompts):
        cached.take(torch.arange(len(asked), device=device).repeat_interleave(repeats))
    rows = _Rows(len(prompts), draw, device)
    for step in range(draw.params.max_new_tokens):
        token, told = draw.tokens(cached.last, uniforms[rows.here, step])
        live = rows.append(step, token, told)
        if not live.any():
            break
        if live.float().mean() < COMPACT_BELOW:
            keep = live.nonzero()[:, 0]
            cached.take(keep)
            rows.here, token = rows.here[keep], token[keep]
        if step + 1 < draw.params.max_new_tokens:
            cached.step(token)
    return rows.completions()


class _Rows:
    """What has been sampled so far. `here` are the places of the rows that are still in the batch."""

    def __init__(self, count: int, draw: Draw, device: torch.device) -> None:
        self.draw, self.here = draw, torch.arange(count, device=device)
        limit = draw.params.max_new_tokens
        self.told = torch.zeros((count, limit, draw.told), dtype=torch.int32, device=device)
        self.lengths = torch.full((count,), limit, dtype=torch.int64, device=device)
        self.finished = torch.zeros(count, dtype=torch.bool, device=device)

    def append(self, step: int, token: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Take a token of each row that is here; which of the rows go on [rows]."""
        here = self.here
        self.told[here, step] = told
        now = token == self.draw.end_id
        if self.draw.params.stop:
            said = self.told[here, : step + 1, 0].cpu().numpy()
            now |= torch.tensor([self.draw.stopped(ids, 1) is not None for ids in said], device=now.device)
        now &= ~self.finished[here]
        self.lengths[here[now]] = step + 1
        self.finished[here[now]] = True
        return ~self.finished[here]

    def completions(self) -> list[Completion]:
        """All rows, each up to its end."""
        told = self.told.cpu().numpy()
        ends = zip(self.lengths.tolist(), self.finished.tolist(), strict=True)
        return [self.draw.completion(told[i, :length], stop) for i, (length, stop) in enumerate(ends)]
