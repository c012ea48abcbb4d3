"""Which data and which random numbers a step uses: functions of seed and step alone."""

from __future__ import annotations

import hashlib
import random


def seed_of(*parts: object) -> int:
    """A 63-bit seed made of anything printable, the same in every process.

    Example:
        >>> seed_of(1, "rollouts", 0) == seed_of(1, "rollouts", 0)
        True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_indices(count: int, size: int, seed: int, step: int) -> list[int]:
    """Indices `step * size ... + size` of an endless row of shuffled passes over `count` items.

    Example:
        >>> sorted(epoch_indices(4, 2, 1, 0) + epoch_indices(4, 2, 1, 1))
        [0, 1, 2, 3]
    """
    out = []
    order: list[int] = []
    current = -1
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, count)
        if epoch != current:
            order, current = list(range(count)), epoch
            random.Random(f"{seed}/{epoch}").shuffle(order)
        out.append(order[place])
    return out
