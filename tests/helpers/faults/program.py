"""Hostile programs in the sandbox, on the rights of every kernel from 5.13 on, with and without namespaces, as root and
not. What they do is in `hostile`, what they must not reach in `jailed`.
"""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path

from faults.frame import Fault, Outcome
from hostile import HOSTILE
from jailed import KERNELS, OLDEST, USERS, Attacker, Kernel, attacker, kernels


def faults() -> list[Fault]:
    """All programs on all kernels; where the kernel is too old for any, one is enough."""
    out = []
    names = list(HOSTILE)
    for user in USERS:
        if isinstance(attacker(user), str):
            continue
        for kernel in kernels():
            names = [*names[1:], names[0]]  # so that each K-th is not the same program everywhere
            for name in names if kernel.landlock >= OLDEST else names[:1]:
                words = f"{name}, {user} user, {kernel} (Linux {KERNELS[kernel.landlock]})"
                out.append(Fault("program", words, partial(_attack, user, kernel, name)))
    return out


@cache
def _attacker(user: str, process: int) -> Attacker:
    made = attacker(user)
    assert isinstance(made, Attacker)
    return made


def _attack(user: str, kernel: Kernel, name: str, home: Path) -> Outcome:
    answer = _attacker(user, os.getpid()).attack(name, kernel)
    if answer.wrong:
        return Outcome("lost", f"let in: {answer.wrong}: {answer.output[-200:]}")
    if kernel.landlock >= OLDEST:
        return Outcome("lost", f"refused: {answer.refused}") if answer.refused else Outcome("survived")
    if "fix:   use Linux 6.2 or newer" not in answer.refused:
        return Outcome("lost", f"let in: it ran, or was refused without a way to mend it: {answer.refused}")
    return Outcome("clear", answer.refused.splitlines()[0])
