"""One update: micro-batches, the loss of each, and the optimizer's step (stops 6 and 7)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vold.engines.mismatch import Mismatch
from vold.model.batching import collate
from vold.model.parallel import ALONE, Processes
from vold.objective import Streams, averages, token_counts, total
from vold.run.console import console
from vold.training.logit_distillation import Comparison, compared
from vold.training.optim import apply_update, check_finite, learning_rate
from vold.types import Prompt, Rollout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.lm_head.fused import Reading
    from vold.model.policy import Policy
    from vold.objective import Denominators, Objective
    from vold.run.recipe import Distill
    from vold.types import Teacher


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollouts: Sequence[Rollout],
    prompts: Sequence[Prompt],
    config: Distill,
    step: int,
    teacher: Teacher | None,
    asks: Sequence[Prompt | None],
    group: Processes = ALONE,
) -> dict[str, Any]:
    """One optimizer step on credited rollouts. Returns its metrics.

    `prompts` and `asks` are the student's and the teacher's prompts by group. Rollouts of a task without a text view
    (None in `asks`) do not dilute the teacher term. The teacher is asked again only for whole distributions.

    Rollouts that carry no signal (advantage zero everywhere, no teacher weight) take no part in the forward pass;
    the denominators count them all the same, so the gradient is that of the whole step. Every process has all rollouts
    and runs its share of the micro-batches.
    """
    objective, temperature = config.objective, config.sampling.temperature
    denominators = token_counts(
        objective,
        rollouts,
        teachable=[asks[r.group] is not None for r in rollouts],
        max_new_tokens=config.sampling.max_new_tokens,
    )
    active = [
        i
        for i, r in enumerate(rollouts)
        if any(r.advantage or ()) or any(r.live_weight or ()) or any(r.teacher_weight or ())
    ]
    lengths = [len(rollouts[i].completion.ids) for i in active]
    loss_value, mismatch, sums = 0.0, Mismatch(), Counter[str]()
    shown = [prompts[rollouts[i].group] for i in active]
    cuts = policy.micro_batches(shown, lengths, config.token_budget, group.world)
    for turn in group.rounds([sum(lengths[j] for j in cut) for cut in cuts]):
        part = [active[j] for j in cuts[turn.number]]
        batch = collate(
            [prompts[rollouts[i].group] for i in part],
            [rollouts[i].completion.ids for i in part],
            [rollouts[i].completion.action_mask for i in part],
            policy.chat.pad_id,
        )
        here = [rollouts[i] for i in part]
        comparison = compared(objective, here, [asks[r.group] for r in here], teacher, policy.model.device)
        micro = _MicroBatch(objective, flatten(rollouts, part, policy.model.device), comparison, denominators, step)
        reading = policy.read(
            batch,
            temperature=temperature,
            candidates=None if comparison is None else comparison.candidates,
            against=None if comparison is None else comparison.against,
            loss_of=micro.loss_of if objective.by_token else None,
        )
        streams, logp = micro.streams_of(reading), reading.logp
        loss, metrics = total(objective, streams, denominators, step)
        check_finite(loss, step=step)
        group.backward(policy, loss, turn)
        if not turn.counts:
            continue
        loss_value += loss.item()
        sums.update({k: float(v) for k, v in metrics.items()})
        sums.update({"entropy_sum": float(reading.entropy.sum()), "trained_tokens": len(logp)})
        own = torch.tensor([r.source == "student" for r in rollouts])[streams.sequence_index.cpu()].to(logp.device)
        mismatch.add(logp[own], streams.behaviour_logp[own])
    found = group.gather((loss_value, sums, mismatch))
    loss_value, sums, mismatch = sum(v for v, _, _ in found), Counter[str](), Mismatch()
    for _, theirs, apart in found:
        sums.update(theirs)
        mismatch.merge(apart)
    row: dict[str, Any] = {"step": step, "loss": loss_value, "grad_norm": 0.0}
    row["lr"] = learning_rate(config.optimizer, step, config.steps)
    if warning := mismatch.over(config.mismatch.limit, config.mismatch.action, step=step):
        console.print(f"[bold]warning[/bold]: {warning}")
    if active:  # with nothing to learn from, momentum alone must not move the weights
        norm = apply_update(policy, optimizer, lr=row["lr"], max_grad_norm=config.optimizer.max_grad_norm)
        row |= {"grad_norm": norm, "entropy": sums["entropy_sum"] / sums["trained_tokens"], **mismatch.row()}
    return row | averages(sums) | {"trained_tokens": int(sums["trained_tokens"])}


@dataclass(frozen=True, eq=False)
class _MicroBatch:
    """What turns a reading of the head into a loss; `streams` wait for their log-probs."""

    objective: Objective
    streams: Streams
    comparison: Comparison | None
    denominators: Denominators
    step: int

    def streams_of(self, reading: Reading, tokens: slice = slice(None)) -> Streams:
        divergence = None if self.comparison is None else self.comparison.stream(reading, tokens)
        return self.streams.at(tokens, reading.logp, divergence)

    def loss_of(self, tokens: slice, reading: Reading) -> torch.Tensor:
        return total(self.objective, self.streams_of(reading, tokens), self.denominators, self.step)[0]


def flatten(rollouts: Sequence[Rollout], part: Sequence[int], device: torch.device) -> Streams:
    """Per-token values of some rollouts, action tokens only, rollout after rollout. The log-probs at the time of
    sampling stand for those of the student until `Streams.at` brings them."""
    behaviour, advantage, live, teacher, weight, index, length = [], [], [], [], [], [], []
    for i in part:
        r = rollouts[i]
        actions = [t for t, a in enumerate(r.completion.action_mask) if a]
        behaviour += [r.completion.logps[t] for t in actions]
        advantage += [r.advantage[t] if r.advantage else 0.0 for t in actions]
        teacher += [r.teacher.logp[t] if r.teacher is not None else float("nan") for t in actions]
        live += [r.live_weight[t] if r.live_weight else 0.0 for t in actions]
        weight += [r.teacher_weight[t] if r.teacher_weight else 0.0 for t in actions]
        index += [i] * len(actions)
        length += [len(actions)] * len(actions)
    sampled = torch.tensor(behaviour, device=device)
    return Streams(
        logp=sampled,
        behaviour_logp=sampled,
        advantage=torch.tensor(advantage, device=device),
        teacher_logp=torch.tensor(teacher, device=device),
        teacher_weight=torch.tensor(weight, device=device),
        sequence_index=torch.tensor(index, device=device),
        sequence_length=torch.tensor(length, device=device),
        live_weight=torch.tensor(live, device=device) if any(live) else None,
    )
