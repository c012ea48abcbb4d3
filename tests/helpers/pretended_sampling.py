"""Sampling on the pretended CUDA device and on the CPU, in one process (`pretended_cuda.run`)."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

import tiny
from pretended_cuda.device import CARD, Counts, counting
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers.inprocess import InProcessSampler
from vold.model.policy import Policy
from vold.types import Completion, Prompt, SamplingParams


def placed(device: str) -> Policy:
    policy = tiny.student()
    policy.model.eval().to(device)
    policy.ban_placeholders()
    return policy


def told(groups: list[list[Completion]]) -> list[Any]:
    return [
        [c.ids.tolist(), c.finish, c.logps.tolist(), [] if c.candidate_ids is None else c.candidate_ids.tolist()]
        for group in groups
        for c in group
    ]


def rows() -> dict[str, Any]:
    """Texts and pictures, groups of four in eight slots: the same rows on either device."""
    out = {}
    for device in ("cpu", "cuda"):
        with _disable_current_modes() if device == "cpu" else contextlib.nullcontext():
            policy = placed(device)
            sets = [DigitTasks("test", form, 3, 4) for form in ("text", "image")]
            prompts = [policy.chat.prompt(s[i].messages) for i in range(3) for s in sets]
            sampler, params = InProcessSampler(policy, batch_size=8), SamplingParams(50, 1.0, 3, candidates=2)
            with counting() as counts:
                out[device] = told(sampler.generate(prompts, params, 4))
    return {**out, "attention": counts.attention}


def longer(tokens: list[int]) -> dict[str, Any]:
    """What rows that end at no time cost, by their number of tokens."""
    policy = placed("cuda")
    policy.chat.tokenizer.eos_token_id = int(policy.banned[0])  # never comes
    seen: list[Counts] = []
    for n in tokens:
        with counting() as counts:
            InProcessSampler(policy).generate([Prompt((20, 21, 22))], SamplingParams(n, 1.0, 3), 16)
        seen.append(counts)
    return {"totals": [c.totals() for c in seen], "waits": seen[-1].waits, "names": seen[-1].names}


ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "dynamic": {"factor": 2.0},
    "longrope": {
        "short_factor": [1.0] * 4, "long_factor": [1.5] * 4, "original_max_position_embeddings": 16, "factor": 4.0,
    },
}  # fmt: skip
"""Ways to rotate by position, of heads of 8; the last two choose by the positions of a pass, 16 and more here."""


def rotated() -> dict[str, Any]:
    """By the way of rotating: rows on either device, and how many graphs were replayed."""
    out: dict[str, Any] = {}
    for kind, values in ROPES.items():
        out[kind] = {}
        for device in ("cpu", "cuda"):
            with _disable_current_modes() if device == "cpu" else contextlib.nullcontext():
                model = tiny.teacher(positions=16, rope={"rope_type": kind, "rope_theta": 10000.0, **values})
                model.model.eval().to(device)
                model.ban_placeholders()
                with counting() as counts:
                    made = InProcessSampler(model, 8).generate([Prompt((20, 21, 22))], SamplingParams(40, 1.0, 3), 4)
                out[kind][device] = told(made)
        out[kind]["graphs"] = counts.names["graph"]
    return out


def graphs() -> dict[str, Any]:
    """A graph's own rules: its values before and after recording, after two replays, and what a wait in it says."""
    total, step = torch.zeros(2, device=CARD), torch.ones(2, device=CARD)

    def add() -> None:
        total.add_(step * 2)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add()
    recorded = total.tolist()
    graph.replay()
    step.fill_(5)
    graph.replay()
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            total.sum().item()
    except RuntimeError as refused:
        return {"recorded": recorded, "replayed": total.tolist(), "refused": str(refused)}
    return {}
