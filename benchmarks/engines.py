"""Sampling and scoring in this process against a vLLM server on this machine, one thread each."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shapes import GROUP

from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.samplers.server import ServerSampler
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.server import ServerTeacher
from vold.model.policy import Policy
from vold.types import Prompt, SamplingParams, ScoreRequest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
from engine_backends import VLLM_PYTHON, RealVllm, client

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.types import Sampler, Teacher

PROMPT, NEW = 32, 64


def engines(model: Path, repetitions: int, *, rows: int = 16) -> dict[str, dict[str, list[float]]]:
    """Wall seconds a token of rollouts, and of scores of those rollouts, by side: `vold` and `vllm`."""
    if not VLLM_PYTHON:
        raise SystemExit("set VOLD_VLLM_PYTHON to an interpreter that has vLLM: `make test-engines` makes one")
    policy = Policy.load(str(model))
    chance = random.Random(0)
    ids = [tuple(chance.randrange(100, policy.rows) for _ in range(PROMPT)) for _ in range(rows // GROUP)]
    prompts = [Prompt(p) for p in ids]
    with RealVllm(model, model.parent / "vllm.log") as server:
        server.start()
        rollout_client, teacher_client = (client(server.url, role=r, patience=600.0) for r in ("rollout", "teacher"))
        remote = ServerSampler(rollout_client, end_id=policy.chat.end_id, banned=policy.banned.tolist())
        made = remote.generate(prompts, SamplingParams(NEW, 1.0, 0), GROUP)
        requests = [ScoreRequest(p.ids, c.ids) for p, group in zip(prompts, made, strict=True) for c in group]
        samplers: dict[str, Sampler] = {"vold": InProcessSampler(policy, rows), "vllm": remote}
        teachers: dict[str, Teacher] = {
            "vold": InProcessTeacher(policy, temperature=1.0, token_budget=8192),
            "vllm": ServerTeacher(teacher_client, requests[0]),
        }

        def sample(side: str, turn: int) -> int:
            groups = samplers[side].generate(prompts, SamplingParams(NEW, 1.0, turn), GROUP)
            return sum(len(c.ids) for group in groups for c in group)

        def score(side: str, turn: int) -> int:
            return sum(len(s.logp) for s in teachers[side].score(requests))

        return {"rollouts": _alternate(sample, repetitions), "teacher": _alternate(score, repetitions)}


def _alternate(work: Callable[[str, int], int], repetitions: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"vold": [], "vllm": []}
    for turn in range(repetitions + 1):
        for side, seconds in found.items():
            began = time.perf_counter()
            tokens = work(side, turn)
            if turn:
                seconds.append((time.perf_counter() - began) / tokens)
    return found
