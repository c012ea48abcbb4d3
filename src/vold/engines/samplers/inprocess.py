"""Sampling inside the training process: batched, cached, and finished rows leave the batch."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from vold.engines.samplers.cpu_weights import reordered_weights
from vold.errors import SamplerError
from vold.model.chat import stack_vision
from vold.model.lm_head.chunked_logits import head_logits
from vold.model.lm_head.teacher_logits import top_logprobs
from vold.model.parallel import ALONE, Processes
from vold.types import Completion, Prompt, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from vold.model.policy import Policy
    from vold.types import Finish

COMPACT_BELOW = 0.75
"""Rows are dropped from the cache when fewer than this share of them still generate."""


class InProcessSampler:
    """Samples from a `Policy` in this process. The prompt of a group passes through the model once.

    Every token of every row has its own random number, drawn up front from the seed: what a row becomes depends on
    the seed and its place in the call, not on when other rows finish.

    Args:
        policy: the model; it is read, never changed.
        batch_size: rows that generate side by side.
        group: the processes that divide the model's weights.
    """

    def __init__(self, policy: Policy, batch_size: int = 128, group: Processes = ALONE) -> None:
        self.policy, self.batch_size, self.group = policy, batch_size, group

    def holding(self, step: int) -> AbstractContextManager[None]:
        """Inside, this process has all of the model's weights, whatever the step."""
        return self.group.gathered(self.policy)

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        """`n` completions of each prompt.

        Raises:
            SamplerError: the model produced a distribution that is not finite.
        """
        return self.stream(prompts, params, n, lambda place, completions: None)

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Callable[[int, list[Completion]], None]
    ) -> list[list[Completion]]:
        """As `generate`, and `whole` hears of the prompts whose last row was in a batch after each batch."""
        rows = [p for p in prompts for _ in range(n)]
        generator = torch.Generator().manual_seed(params.seed)
        places = params.first_row + len(rows)
        uniforms = torch.rand((places, params.max_new_tokens), generator=generator, dtype=torch.float64)
        uniforms = uniforms[params.first_row :]
        was_training = self.policy.model.training
        self.policy.model.eval()
        done: list[Completion] = []
        made: list[list[Completion]] = []
        with reordered_weights(self.policy):
            for start in range(0, len(rows), self.batch_size):
                part = slice(start, start + self.batch_size)
                with torch.inference_mode():
                    done += self._batch(rows[part], uniforms[part], params)
                for place in range(len(made), len(done) // n):
                    made.append(done[place * n : (place + 1) * n])
                    whole(place, made[place])
        self.policy.model.train(was_training)
        return made

    def _batch(self, prompts: list[Prompt], uniforms: torch.Tensor, params: SamplingParams) -> list[Completion]:
        policy = self.policy
        device = policy.model.device
        firsts = [i for i, p in enumerate(prompts) if not i or p is not prompts[i - 1]]
        repeats = torch.tensor([b - a for a, b in itertools.pairwise([*firsts, len(prompts)])], device=device)
        asked = [prompts[i] for i in firsts]  # a prompt that rows share is read once, and its cache copied
        ids, mask = _left_pad(asked, policy.chat.pad_id)
        ids, mask = ids.to(device), mask.to(device)
        vision = {k: v.to(device) for k, v in stack_vision(asked).items()}
        positions = policy.positions(ids, mask, vision)
        cache = DynamicCache()
        rows = _Rows(len(prompts), params, policy.chat.end_id, device)
        uniforms = uniforms.to(device)
        head = policy.model.get_output_embeddings()
        for step in range(params.max_new_tokens):
            output = policy.hidden(
                ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **vision
            )
            last = output.last_hidden_state[:, -1]
            if step == 0 and len(asked) < len(prompts):
                owner = torch.arange(len(asked), device=device).repeat_interleave(repeats)
                cache.batch_select_indices(owner)
                last, mask, positions = last[owner], mask[owner], positions[..., owner, :]
            vision = {}
            logits = head_logits(last, head, policy.banned, params.temperature)
            logp = logits.log_softmax(-1)
            greedy = params.temperature == 0
            token = logits.argmax(-1) if greedy else _inverse_cdf(logp, uniforms[rows.here, step])
            live = rows.append(step, token, logp)
            if not live.any():
                break
            ids = token[:, None]
            positions = positions[..., -1:] + 1  # a prompt ends in text, where all position axes agree
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            if live.float().mean() < COMPACT_BELOW:
                keep = live.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows.here, ids, mask, positions = rows.here[keep], ids[keep], mask[keep], positions[..., keep, :]
        return rows.completions()


class _Rows:
    """What has been sampled so far. `here` are the places of the rows that are still in the batch."""

    def __init__(self, count: int, params: SamplingParams, end_id: int, device: torch.device) -> None:
        size = (count, params.max_new_tokens)
        self.end_id, self.here = end_id, torch.arange(count, device=device)
        self.ids = torch.zeros(size, dtype=torch.int64, device=device)
        self.logps = torch.zeros(size, dtype=torch.float32, device=device)
        self.lengths = torch.full((count,), params.max_new_tokens, dtype=torch.int64, device=device)
        self.finished = torch.zeros(count, dtype=torch.bool, device=device)
        self.candidates = torch.zeros((*size, params.candidates), dtype=torch.int64, device=device)

    def append(self, step: int, token: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
        """Take a token of each row that is here [rows], out of its log-probs; which of the rows go on [rows]."""
        here = self.here
        self.ids[here, step] = token
        self.logps[here, step] = logp.gather(-1, token[:, None])[:, 0]
        if k := self.candidates.shape[-1]:
            self.candidates[here, step] = top_logprobs(logp, k)[0]
        now = (token == self.end_id) & ~self.finished[here]
        self.lengths[here[now]] = step + 1
        self.finished[here[now]] = True
        return ~self.finished[here]

    def completions(self) -> list[Completion]:
        """All rows, each up to its end."""
        kept = [v.cpu().numpy() for v in (self.ids.int(), self.logps, self.candidates.int())]
        out = []
        for i, (length, stop) in enumerate(zip(self.lengths.tolist(), self.finished.tolist(), strict=True)):
            row, values, best = (v[i, :length] for v in kept)
            finish: Finish = "stop" if stop else "length"
            out.append(Completion(row, values, np.ones(length), finish, best if best.shape[-1] else None))
        return out


def _left_pad(prompts: Sequence[Prompt], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(p.ids) for p in prompts)
    ids = torch.tensor([[pad_id] * (width - len(p.ids)) + list(p.ids) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
    return ids, mask


def _inverse_cdf(logp: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token whose slice of the cumulative distribution holds `uniform` ([rows] in [0, 1))."""
    cumulative = logp.double().exp().cumsum(-1)
    total = cumulative[:, -1:]
    if not torch.isfinite(total).all():
        raise SamplerError("the student's next-token distribution is not finite", fix="lower the learning rate")
    token = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)[:, 0]
    return token.clamp(max=logp.shape[-1] - 1)
