"""What a pass through a model takes beside its weights, in bytes; for `vold.model.memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vold.model.footprint import Footprint

PROMPT_TOKENS = 512
"""Tokens a prompt is taken to have, all of them pictures where there are some: the plan is made before any is read."""
PROMPTS_TOKENS = 16384
"""Tokens of prompts that a sampler reads in one pass, see `vold.engines.samplers`."""
SAMPLED_LOGIT = 32
"""Bytes for each id of each row while a token is drawn: logits and log-probs, and float64 rows of the inverse CDF."""


def scoring(model: Footprint, tokens: int, chunk: int) -> dict[str, int]:
    """The higher of two peaks: inside a layer, and at the head, where the last states alone are left."""
    states = {"activations": tokens * model.width * model.size, "head": logits(model, tokens, chunk)}
    layer = {"activations": tokens * model.passing + model.unpacked}
    return max(layer, states, key=lambda parts: sum(parts.values()))


def sampling(model: Footprint, rows: int, tokens: int, each: int, *, pictures: bool = True) -> dict[str, int]:
    """Rows that generate side by side, each up to its last token, `each` of them of one prompt. Besides their keys and
    values there is the highest of three peaks: in the language model as prompts are read, in the vision tower as their
    pictures are, and as tokens are drawn."""
    prompts = min(-(-rows // each) * PROMPT_TOKENS, PROMPTS_TOKENS)
    seen = rows * PROMPT_TOKENS * model.seeing if pictures else 0
    reading = {"prompts": max(prompts * model.passing + model.unpacked, seen)}
    drawing = {"head": rows * model.vocabulary * SAMPLED_LOGIT}
    most = max(reading, drawing, key=lambda parts: sum(parts.values()))
    return {"cache": rows * (PROMPT_TOKENS + tokens) * model.cached, **most}


def logits(model: Footprint, tokens: int, chunk: int, buffers: int = 2) -> int:
    """Float32 buffers of a chunk of at most so many logits, see `vold.model.lm_head.fused`."""
    return buffers * 4 * min(chunk, tokens * model.vocabulary)
