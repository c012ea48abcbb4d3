"""An update of the student, beside the best product of the card."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu.clock import GIB, host_waits, is_real, seconds_and_peak, wait
from benchmarks.gpu.pair import recipe_of
from benchmarks.gpu.peaks import product
from vold.engines.teachers.routed import RoutedTeacher
from vold.model.batching import collate
from vold.model.loading import load_student
from vold.model.sharding import layers_of
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


class Setup:
    """A student that learns by the recipe from stored rollouts.

    Args:
        given: what is measured.
        words: what changes the recipe.
    """

    def __init__(self, given: Given, *words: str) -> None:
        recipe = recipe_of(given, *GRPO, *words)
        assert recipe.distill is not None
        self.device, self.policy = given.device, load_student(recipe, train=True)
        self.learner = Timed(recipe.distill, self.policy, build_optimizer(self.policy, recipe.distill.optimizer))
        self.nobody = RoutedTeacher({})
        self.each = 6 + 2 * (recipe.learner.activation_checkpointing is True)

    def of(self, rows: int, length: int, best: float) -> dict[str, Any]:
        """Updates of one shape, beside the `best` product in TFLOP/s; norm and metrics are the first one's."""
        step, rollouts = stored(self.policy, rows, length)
        work = partial(one_update, self.learner, rollouts, step, self.nobody)
        began = time.perf_counter()
        said, _ = work()
        first, turns = time.perf_counter() - began, []
        for _ in range(3):
            spent, peak = seconds_and_peak(self.device, work)
            turns.append((spent, spent - self.learner.optimizer_seconds, peak))
        with host_waits(self.device) as waits:
            work()
        whole, passes, peak = sorted(turns)[1]
        tflops = work_of(self.policy, rows, length) / 1e12
        return {
            "seconds": whole,
            "seconds_first": first,
            "optimizer_seconds": whole - passes,
            "tflops": tflops / passes,
            "tflops_with_recomputation": work_of(self.policy, rows, length, self.each) / 1e12 / passes,
            "share": tflops / passes / best,
            "share_with_optimizer": tflops / whole / best,
            "gib": peak,
            "host_waits": len(waits),
            "grad_norm": said.grad_norm,
            "trained_tokens": said.trained_tokens,
            "advantages": sum(float(np.abs(r.advantage).sum()) for r in rollouts),
        }


def update(given: Given) -> dict[str, Any]:
    """`vold.training.step.update` on stored rollouts, as the recipe has it: shares of the best product are of the
    micro-batches, and of the whole update with clipping and AdamW."""
    setup = Setup(given)
    watched = next(p for n, p in setup.policy.trainable() if n.endswith("layers.0.mlp.up_proj.weight"))
    before = watched.detach().clone()
    best = max(product(given, given.per(64, 8192)) for _ in range(2))
    found = {f"{rows} x {length}": setup.of(rows, length, best) for rows, length in given.shape.updates}
    changed = float((watched.detach() != before).float().mean())
    share = max(one["share"] for one in found.values())
    return {"product_tflops": best, **found, "share": share, "changed_weights": changed, "held_gib": held(given.device)}


def compiled(given: Given) -> dict[str, Any]:
    """The first shape of `update` with `student.compile`, beside the same layers as they are."""
    if not is_real(given.device):
        return {"left out": "layers are compiled on a GPU"}
    setup = Setup(given, "student.compile=true")
    rows, length = given.shape.updates[0]
    best = product(given, given.per(64, 8192))
    found = {"compiled": setup.of(rows, length, best)}
    for layer in layers_of(setup.policy):
        layer._compiled_call_impl = None
    found["plain"] = setup.of(rows, length, best)
    return {**found, "compiled_over_plain": found["compiled"]["seconds"] / found["plain"]["seconds"]}


def held(device: str) -> float:
    """GiB that tensors take now; 0 on a CPU."""
    return torch.cuda.memory_allocated() / GIB if device == "cuda" else 0.0
