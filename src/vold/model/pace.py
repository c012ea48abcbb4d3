"""Seconds and bytes of a step by arithmetic, and what is left of that at the rates a card was measured at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vold.model.footprint import Footprint
    from vold.run.recipe import Recipe

GIGA = 1e9


@dataclass(frozen=True)
class Sizes:
    """A step of the paper's pair on H100 nodes. `share_*` is what of a peak is taken to be reached."""

    student: float = 3.09e9  # weights that are trained and passed through: the language model
    frozen: float = 0.67e9  # vision tower and projector
    teacher: float = 8.19e9
    rollouts: int = 260  # 52 prompts, 5 responses each
    prompt: int = 512
    response: int = 4096
    asked: float = 0.5  # share of the rollouts that the teacher scores
    budget: int = 8192  # distill.token_budget
    recompute: int = 1  # 1 with student.activation_checkpointing=true
    once: int = 0  # 1 with run.exchange=step
    flops: float = 989e12
    share_flops: float = 0.4
    memory: float = 3.35e12  # bytes a second
    share_memory: float = 0.6
    node: float = 450e9  # bytes a second into a GPU from its own node
    network: float = 50e9  # the same from another node
    share_link: float = 0.7


def step(s: Sizes, gpus: int, nodes: int) -> dict[str, float]:
    """Seconds by phase, and GB into each GPU by purpose.

    Rollouts: a decoding step reads the bfloat16 weights once for all rows of a GPU. Teacher: 2 FLOPs a weight and
    token. Update: 6, and 2 more where activations are computed again. A micro-batch gathers the bfloat16 weights twice
    (forward and backward) and scatters float32 gradients once: 2 + 2 + 4 bytes a weight, and 2 for a frozen one. With
    `run.exchange: step` all micro-batches of a step together gather once and scatter once. A GPU has 1 / gpus of them
    already.
    """
    tokens = s.rollouts * (s.prompt + s.response)
    rate = s.flops * s.share_flops
    micro = math.ceil(math.ceil(tokens / s.budget) / gpus)
    away = (gpus - 1) / gpus
    link = (s.network if nodes > 1 else s.node) * s.share_link
    sample_bytes = 2 * (s.student + s.frozen) * away
    update_bytes = sample_bytes + 4 * s.student * away if s.once else (8 * s.student + 2 * s.frozen) * away * micro
    return {
        "rollouts": s.response * 2 * s.student / (s.memory * s.share_memory) + sample_bytes / link,
        "teacher": 2 * s.teacher * tokens * s.asked / rate / gpus,
        "update, products": (6 + 2 * s.recompute) * s.student * micro * min(s.budget, tokens) / rate,
        "update, exchange": update_bytes / link,
        "GB for rollouts": sample_bytes / GIGA,
        "GB for the update": update_bytes / GIGA,
        "micro-batches": micro,
    }


@dataclass(frozen=True)
class Rates:
    """What this program has reached on a card, see docs/gpu.md.

    Attributes:
        card: its name.
        flops: of an update, a second, what is computed again included.
        token: seconds that the sampler in this process needs for one token of every row.
        copies: bytes a second between the card and pinned memory of the host.
    """

    card: str
    flops: float
    token: float
    copies: float


H100 = Rates("H100", flops=407e12, token=0.094, copies=55e9)
"""The figures of benchmarks/results/gpu-h100.json."""


def sizes_of(recipe: Recipe, student: Footprint, teacher: Footprint | None) -> Sizes:
    """Those of a recipe's stage 2, with responses as long as they may be. A mask on the teacher's part is taken to
    leave half of the rollouts to it."""
    d = recipe.distill
    assert d is not None
    asked = 0.0
    if teacher is not None and d.objective.uses_teacher:
        masks = [term.mask for term in (d.objective.teacher_loss, d.objective.teacher_advantage) if term is not None]
        asked = 1.0 if "none" in masks else 0.5
    return Sizes(
        student=student.text,
        frozen=student.parameters - student.text,
        teacher=0 if teacher is None else teacher.text,
        rollouts=d.prompts_per_step * d.rollouts,
        response=d.sampling.max_new_tokens,
        asked=asked,
        budget=d.token_budget,
        recompute=int(recipe.learner.activation_checkpointing is True),
        once=int(recipe.run.exchange == "step"),
    )


def at(rates: Rates, sizes: Sizes, gpus: int, nodes: int, *, in_process: bool, moved: int) -> dict[str, float]:
    """`step` with what was measured in place of what was assumed.

    Args:
        rates: what was measured.
        sizes: of the step.
        gpus: that train.
        nodes: that they are in.
        in_process: whether they sample too. Of servers nothing was measured.
        moved: bytes a step between a card and the host.
    """
    found = step(replace(sizes, flops=rates.flops, share_flops=1.0), gpus, nodes)
    if in_process:
        found["rollouts"] = sizes.response * rates.token
    return found | {"copies": moved / rates.copies}
