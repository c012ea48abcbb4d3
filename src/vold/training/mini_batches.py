"""Which rollouts of a step each of its updates learns from."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from vold.run.order import seed_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.run.stage_sections import Updates
    from vold.types import Rollout


def mini_batches(updates: Updates, rollouts: Sequence[Rollout], seed: int) -> Iterator[list[Rollout]]:
    """The rollouts of each update, epoch after epoch: a function of these arguments alone.

    In each epoch every rollout comes once. Groups are shuffled and laid in a row, which is cut into parts whose sizes
    differ by one at most, so that only a group at a cut is divided. Traces of the teacher's are cut for themselves:
    every part has its share of them. One mini-batch is all rollouts in their own order.

    Args:
        updates: how many parts and epochs.
        rollouts: of the step, credited.
        seed: of the step.
    """
    for epoch in range(updates.epochs):
        if updates.mini_batches == 1:
            yield list(rollouts)
            continue
        rng = random.Random(seed_of(seed, "updates", epoch))
        parts: list[list[Rollout]] = [[] for _ in range(updates.mini_batches)]
        for source in ("student", "teacher"):
            groups: dict[int, list[Rollout]] = {}
            for r in rollouts:
                if r.source == source:
                    groups.setdefault(r.group, []).append(r)
            row = [r for group in rng.sample(sorted(groups), len(groups)) for r in groups[group]]
            for i, part in enumerate(parts):
                part += row[i * len(row) // len(parts) : (i + 1) * len(row) // len(parts)]
        yield from filter(None, parts)
