"""The sampler in the process: tokens a second, and a token step beside what the card itself works for it."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.clock import once, own_work
from benchmarks.gpu.pair import recipe_of
from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.loading import load_student
from vold.types import Prompt, SamplingParams

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given

EACH = 4
"""Rows of a prompt."""


def sampler(given: Given) -> dict[str, Any]:
    """64 rows after prompts of one length, of several, and of about 4,000 tokens.

    Weights are random, so nearly all rows use up their budget. What was sampled is described: how many ids there were,
    that none of them is ruled out, and their mean log-prob beside that of ids drawn at random.
    """
    policy = load_student(recipe_of(given))
    rows, tokens = given.per(8, 64), given.per(16, 256)
    free = sorted(set(range(policy.rows)) - set(policy.banned.tolist()))
    engine = InProcessSampler(policy, rows)

    def prompts(lengths: tuple[int, ...]) -> list[Prompt]:
        sizes = itertools.islice(itertools.cycle(lengths), rows // EACH)
        return [Prompt(tuple(free[(7 * i + j) % len(free)] for j in range(size))) for i, size in enumerate(sizes)]

    def timed(lengths: tuple[int, ...], new: int) -> tuple[float, list[Any]]:
        made: list[Any] = []
        asked = prompts(lengths)
        spent = once(given.device, lambda: made.extend(engine.generate(asked, SamplingParams(new, 1.0, 1), EACH)))
        return spent, [c for group in made for c in group]

    same, mixed, long = ((12,), (12, 5), (24,)) if given.shape.tiny else ((128,), (128, 100, 60, 31), (4000,))
    timed(same, tokens)  # libraries set themselves up
    whole, made = timed(same, tokens)
    count = sum(len(c.ids) for c in made)
    half, _ = timed(same, tokens // 2)
    ids = {int(i) for c in made for i in c.ids}
    work, kernels = own_work(given.device, lambda: timed(same, tokens // 4))
    a_token, gpu = whole / tokens, work / (tokens // 4)
    later, _ = timed(mixed, tokens)
    far, _ = timed(long, tokens)
    return {
        "rows": rows,
        "prompt_tokens": same[0],
        "tokens": count,
        "tokens_a_second": count / whole,
        "ms_a_token": a_token * 1e3,
        "ms_a_token_later": (whole - half) / (tokens - tokens // 2) * 1e3,
        "gpu_ms_a_token": gpu * 1e3,
        "wall_over_gpu": a_token / gpu,
        "kernels_ms_a_token": {k[:120]: kernels[k] / (tokens // 4) * 1e3 for k in list(kernels)[:8]},
        "ms_a_token_mixed_prompts": later / tokens * 1e3,
        "ms_a_token_long_prompts": far / tokens * 1e3,
        "long_prompt_tokens": long[0],
        "different_ids": len(ids),
        "ruled_out_ids": len(ids - set(free)),
        "mean_logp": sum(float(c.logps.sum()) for c in made) / count,
        "mean_logp_at_random": -math.log(len(free)),
    }
