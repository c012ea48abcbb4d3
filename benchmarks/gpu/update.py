"""An update of the student, beside the best product of the card."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu.clock import GIB, host_waits, seconds_and_peak, wait
from benchmarks.gpu.pair import recipe_of
from benchmarks.gpu.peaks import product
from vold.engines.teachers.routed import RoutedTeacher
from vold.model.batching import collate
from vold.model.loading import load_student
from vold.run.recipe import Distill
from vold.training.learner import Learner
from vold.training.optim import build_optimizer
from vold.training.prompted import Prompted, Step
from vold.training.step import update as one_update
from vold.types import Completion, Grade, Prompt, Rollout, Task

if TYPE_CHECKING:
    from benchmarks.gpu.pair import Given
    from vold.model.policy import Policy

PROMPT = 4
GRPO = ("distill.objective={method: grpo}", "distill.mismatch.action=warn")


def stored(policy: Policy, rows: int, length: int) -> tuple[Step, list[Rollout]]:
    """A step of rows of `length` tokens, prompt included, with the student's own log-probs and an advantage each."""
    chance = random.Random(0)
    free = sorted(set(range(policy.rows)) - set(policy.banned.tolist()))
    prompts = [Prompt(tuple(chance.choices(free, k=PROMPT))) for _ in range(rows)]
    rollouts = []
    for group, prompt in enumerate(prompts):
        ids = chance.choices(free, k=length - PROMPT)
        ones = (1,) * len(ids)
        with torch.no_grad():
            logp = policy.logprobs(collate([prompt], [ids], [ones], policy.chat.pad_id))[0]
        made = Completion(ids, logp.cpu().numpy(), ones, "length")
        sign = 1.0 if group % 2 else -1.0
        rollouts.append(
            Rollout(f"{group}", group, prompt.ids, made, Grade(0.0, None, ""), advantage=(sign,) * len(ids))
        )
    step = Step(0, 0, [Prompted(Task(f"{g}", (), "", ""), p, None) for g, p in enumerate(prompts)])
    return step, rollouts


def work_of(policy: Policy, rows: int, length: int, each: int = 6) -> float:
    """FLOPs of the forward and backward pass: `each` a weight of a layer and token (6, and 2 more where activations are
    made again), as many of causal attention, and 6 of the head where a token is selected."""
    text = policy.model.config.get_text_config()
    layers, width = text.num_hidden_layers, text.hidden_size
    body = sum(p.numel() for n, p in policy.trainable() if p.ndim == 2 and ".layers." in n)
    head = 6 * text.vocab_size * text.hidden_size
    return rows * (length * each * (body + length * width * layers) + (length - PROMPT) * head)


class Timed(Learner[Distill]):
    """A learner that tells how long the optimizer's part of an update took."""

    optimizer_seconds = 0.0

    def apply_update(self, step: int, loss: float) -> float:
        """As its base's."""
        device = self.policy.model.device.type
        wait(device)
        began = time.perf_counter()
        norm = super().apply_update(step, loss)
        wait(device)
        self.optimizer_seconds = time.perf_counter() - began
        return norm


def update(given: Given) -> dict[str, Any]:
    """`vold.training.step.update` on stored rollouts, as the recipe has it: shares of the best product are of the
    micro-batches, and of the whole update with clipping and AdamW."""
    recipe = recipe_of(given, *GRPO)
    assert recipe.distill is not None
    policy = load_student(recipe, train=True)
    learner = Timed(recipe.distill, policy, build_optimizer(policy, recipe.distill.optimizer))
    watched = next(p for n, p in policy.trainable() if n.endswith("layers.0.mlp.up_proj.weight"))
    before = watched.detach().clone()
    nobody = RoutedTeacher({}, lambda prompt_ids: "")
    best = product(given, given.per(64, 8192))
    found: dict[str, Any] = {"product_tflops": best}
    for rows, length in given.shape.updates:
        step, rollouts = stored(policy, rows, length)
        work = partial(one_update, learner, rollouts, step, nobody)
        work()
        turns = []
        for _ in range(3):
            spent, peak = seconds_and_peak(given.device, work)
            turns.append((spent, spent - learner.optimizer_seconds, peak))
        with host_waits(given.device) as waits:
            said, _ = work()
        whole, passes, peak = sorted(turns)[1]
        tflops = work_of(policy, rows, length) / 1e12
        again = work_of(policy, rows, length, 6 + 2 * (recipe.learner.activation_checkpointing is True)) / 1e12
        found[f"{rows} x {length}"] = {
            "seconds": whole,
            "optimizer_seconds": whole - passes,
            "tflops": tflops / passes,
            "tflops_with_recomputation": again / passes,
            "share": tflops / passes / best,
            "share_with_optimizer": tflops / whole / best,
            "gib": peak,
            "host_waits": len(waits),
            "grad_norm": said.grad_norm,
            "trained_tokens": said.trained_tokens,
            "advantages": sum(float(np.abs(r.advantage).sum()) for r in rollouts),
        }
    best = product(given, given.per(64, 8192))
    found["product_tflops"] = max(best, found["product_tflops"])
    shares = [found[f"{rows} x {length}"]["share"] for rows, length in given.shape.updates]
    changed = float((watched.detach() != before).float().mean())
    return {**found, "share": max(shares), "changed_weights": changed, "held_gib": held(given.device)}


def held(device: str) -> float:
    """GiB that tensors take now; 0 on a CPU."""
    return torch.cuda.memory_allocated() / GIB if device == "cuda" else 0.0
