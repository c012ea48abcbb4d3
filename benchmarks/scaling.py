"""Seconds and bytes of a step on one GPU, one node and two, by arithmetic: `python benchmarks/scaling.py`.

Nothing is measured. Every figure follows from the sizes below, which flags change, and says which phase to look at
first. Memory is another question: `vold check RECIPE`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass, fields

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
    recompute: int = 1  # 1 with student.activation_checkpointing
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


def table(s: Sizes) -> str:
    layouts = {"1 GPU": (1, 1), "8 GPUs, 1 node": (8, 1), "16 GPUs, 2 nodes": (16, 2)}
    found = {name: step(s, *layout) for name, layout in layouts.items()}
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for row in next(iter(found.values())):
        lines.append(f"| {row} | " + " | ".join(f"{v[row]:.3g}" for v in found.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=" ")
    print(table(Sizes(**{k: v for k, v in vars(parser.parse_args()).items() if k in asdict(Sizes())})))


if __name__ == "__main__":
    main()
