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
    outside: float = 0.311e9  # of these the ones in no layer: embeddings and last norm
    frozen: float = 0.67e9  # vision tower and projector
    adapters: float = 0  # numbers of adapters, which are then all that is trained
    teacher: float = 8.19e9
    rollouts: int = 260  # 52 prompts, 5 responses each
    prompt: int = 512
    response: int = 4096
    asked: float = 0.5  # share of the rollouts that the teacher scores
    budget: int = 8192  # distill.token_budget
    recompute: int = 1  # 1 with student.activation_checkpointing=true
    once: int = 0  # 1 with run.exchange=step
    across: int = 0  # 1 with run.shard=world
    pictures: float = 0  # share of the micro-batches in which any process has pictures
    size: int = 2  # bytes of a weight in a pass
    flops: float = 989e12
    share_flops: float = 0.4
    memory: float = 3.35e12  # bytes a second
    share_memory: float = 0.6
    node: float = 450e9  # bytes a second into a GPU from its own node
    network: float = 50e9  # the same from another node
    share_link: float = 0.7


@dataclass(frozen=True)
class Exchanged:
    """Bytes that each process receives in an update.

    Attributes:
        weights: gathered from those that hold the other parts.
        gradients: added up with them.
        between: added up with those that hold the same part, on other nodes.
    """

    weights: float
    gradients: float
    between: float

    @property
    def within(self) -> float:
        """From those that hold the other parts."""
        return self.weights + self.gradients


def exchanged(s: Sizes, gpus: int, nodes: int, micro: int) -> Exchanged:
    """What an update of `micro` micro-batches a process moves.

    A student is divided over the `parts` GPUs of a node, or over all with `run.shard: world`; each has 1 / parts of it.
    A micro-batch gathers what is in no layer once, a layer twice (forward and backward) and the frozen tower only where
    there are pictures; float32 gradients are added up once. With `run.exchange: step` all micro-batches of a step
    together gather once and add up once. Between nodes that have copies the sums of a part are added up once a step,
    in a ring: each GPU receives its size twice, less a share.
    """
    parts = gpus if s.across else gpus // nodes
    copies, away = gpus // parts, (parts - 1) / parts
    passes, times = (1, 1) if s.once else (2, micro)
    weights = s.size * (s.outside + passes * (s.student - s.outside)) + 4 * passes * s.adapters
    pictures = min(1.0, s.pictures * micro) if s.once else s.pictures * micro
    gradients = 4 * (s.adapters or s.student)
    return Exchanged(
        weights=away * (times * weights + pictures * s.size * s.frozen),
        gradients=away * times * gradients,
        between=2 * (copies - 1) / copies * gradients / parts,
    )


def gathered(s: Sizes, parts: int) -> float:
    """Bytes that each of `parts` GPUs receives before it samples: what the others have of the student."""
    return (s.size * (s.student + (s.frozen if s.pictures else 0)) + 4 * s.adapters) * (parts - 1) / parts


def step(s: Sizes, gpus: int, nodes: int) -> dict[str, float]:
    """Seconds by phase, and GB into each GPU by purpose.

    Rollouts: a decoding step reads the bfloat16 weights once for all rows of a GPU, which gathers them before. Teacher:
    2 FLOPs a weight and token. Update: 6, and 2 more where activations are computed again; `exchanged` says what moves.
    """
    tokens = s.rollouts * (s.prompt + s.response)
    rate = s.flops * s.share_flops
    micro = math.ceil(math.ceil(tokens / s.budget) / gpus)
    parts = gpus if s.across else gpus // nodes
    near, far = s.node * s.share_link, s.network * s.share_link
    link = far if parts > gpus // nodes else near
    sample_bytes, moved = gathered(s, parts), exchanged(s, gpus, nodes, micro)
    return {
        "rollouts": s.response * 2 * s.student / (s.memory * s.share_memory) + sample_bytes / link,
        "teacher": 2 * s.teacher * tokens * s.asked / rate / gpus,
        "update, products": (6 + 2 * s.recompute) * s.student * micro * min(s.budget, tokens) / rate,
        "update, exchange": moved.within / link + moved.between / far,
        "GB for rollouts": sample_bytes / GIGA,
        "GB for the update": moved.within / GIGA,
        "GB between nodes": (moved.between if parts < gpus else moved.within * (nodes > 1)) / GIGA,
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


H200 = Rates("H200", flops=505e12, token=0.008128, copies=51.81e9)
"""The figures of benchmarks/results/gpu-h200.json."""


def sizes_of(recipe: Recipe, student: Footprint, teacher: Footprint | None) -> Sizes:
    """Those of a recipe's stage 2, with responses as long as they may be. A mask on the teacher's part is taken to
    leave half of the rollouts to it."""
    d = recipe.distill
    assert d is not None
    asked = 0.0
    if teacher is not None and d.objective.uses_teacher:
        masks = [term.mask for term in d.objective.teacher_terms]
        asked = 1.0 if "none" in masks else 0.5
    adapters = student.trained if recipe.learner.lora is not None else 0
    sees = student.parameters - student.text - adapters
    beside = 0 if adapters else student.trained - student.text  # what sees and is trained lies with the embeddings
    return Sizes(
        student=student.text + beside,
        outside=student.outside - sees + beside,
        frozen=sees - beside,
        adapters=adapters,
        teacher=0 if teacher is None else teacher.text,
        rollouts=d.prompts_per_step * d.rollouts,
        response=d.sampling.max_new_tokens,
        asked=asked,
        budget=d.token_budget,
        recompute=int(recipe.learner.activation_checkpointing is True),
        once=int(recipe.run.exchange == "step"),
        across=int(recipe.run.shard == "world"),
        size=student.size,
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
