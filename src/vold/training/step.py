"""The updates of a step: micro-batches, the loss of each, and the optimizer's steps (stops 6 and 7)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.engines.mismatch import Mismatch, distance
from vold.model.parallel import Processes
from vold.model.support import narrowed, support_of
from vold.objective import Streams, averages, token_counts, total
from vold.objective.credit import mix_scale
from vold.run.console import console
from vold.run.metrics import UpdateMetrics
from vold.training.logit_distillation import TokenDivergence, compared
from vold.training.mini_batches import mini_batches
from vold.training.rollout_log import with_entropy
from vold.training.streams import flatten, has_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.model.lm_head.fused import HeadOutput
    from vold.objective import Denominators, Objective
    from vold.run.recipe import Distill
    from vold.training.learner import Learner, MicroBatch
    from vold.training.prompted import Step
    from vold.types import Rollout, Teacher, Values


def update(
    learner: Learner[Distill], rollouts: Sequence[Rollout], step: Step, teacher: Teacher
) -> tuple[UpdateMetrics, list[Rollout]]:
    """The optimizer steps on credited rollouts; every process has all of them and runs its share.

    Rollouts without a signal (advantage and teacher weights 0 everywhere) take no part in the forward pass; the
    denominators count them all the same, so the gradient is that of the whole mini-batch. `teacher` is asked again only
    for whole distributions. With nothing to learn from, and where the gradient is exactly 0, the weights stay: momentum
    alone must not move them.

    Returns:
        The row of the step; and the rollouts, where they are to be stored (`Distill.keeps`) with the student's entropy
        at what was trained on, of several updates the first's.

    Raises:
        TrainingError: loss or gradient is not finite, or sampler and trainer are too far apart. The weights are left
            as they were before the update.
    """
    whole = Tally()
    entropies: dict[int, Values] = {}
    places = {id(r): place for place, r in enumerate(rollouts)} if learner.config.keeps(step.number) else {}
    for part in mini_batches(learner.config.all_updates, rollouts, step.seed):
        mixture = _mixture(learner.config.objective, part, rollouts)
        found = _gradient(learner, part, step, teacher, mixture, Tally(places=places))
        entropies = found.entropies | entropies
        if not whole.updates:  # later on the weights are no longer those that have sampled
            found.gate(learner, step)
            whole.mismatch = found.mismatch
        if found.sums["trained_tokens"]:
            found.grad_norm = learner.apply_update(step.number, found.loss)
            found.updates = int(found.grad_norm > 0)
        whole.take(found)
    return whole.metrics(step.number, learner.rate(step.number)), with_entropy(rollouts, entropies)


def _mixture(objective: Objective, part: Sequence[Rollout], rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Factors of the teacher's weights by source, which give a mini-batch the mixture's own shares: `credit` has
    weighed the two sources by their sizes in the whole step."""
    here, whole = mix_scale(objective, part), mix_scale(objective, rollouts)
    return {source: here[source] / whole[source] for source in whole if whole[source] not in (0, here[source])}


def _gradient(
    learner: Learner[Distill],
    rollouts: Sequence[Rollout],
    step: Step,
    teacher: Teacher,
    mixture: Mapping[str, float],
    tally: Tally,
) -> Tally:
    """Add up the gradient of the loss of some rollouts, in micro-batches that `tally` counts; all processes' sums."""
    counts = _denominators(learner.config, rollouts, step)
    live = [r for r in rollouts if has_signal(r, learner.config.objective)]
    prompts, made = [p.prompt for p in step.of(live)], [r.completion for r in live]
    for micro in learner.micro_batches(prompts, [c.ids for c in made], [c.action_mask for c in made]):
        loss_of = MicroLoss.of(learner, [live[i] for i in micro.rows], step, counts, teacher, mixture)
        output = loss_of.read(learner, micro)
        loss, sums = loss_of.total(output)
        if micro.turn.counts:
            tally.add(loss, sums, loss_of.sampled(output), loss_of)
        learner.backward(loss, micro)
    return tally.merged(learner.group)


def _denominators(config: Distill, rollouts: Sequence[Rollout], step: Step) -> Denominators:
    """Token counts of a whole mini-batch. A task without a text view does not dilute the teacher term."""
    teachable = [p.teacher_prompt is not None for p in step.of(rollouts)]
    budget = config.sampling.max_new_tokens
    return token_counts(config.objective, rollouts, teachable=teachable, max_new_tokens=budget)


@dataclass(frozen=True, eq=False)
class MicroLoss:
    """The loss of a micro-batch, as a function of what is read off the LM head.

    Attributes:
        rollouts: those of the micro-batch.
        streams: per-token values of its rollouts; their log-probs are still those of the sampler.
        comparison: for a loss over distributions; None for losses on sampled tokens.
        own: [tokens] whether the student has sampled them itself.
        support: [tokens, k] the ids that a truncated sampler kept; None where it kept all.
    """

    config: Distill
    rollouts: Sequence[Rollout]
    streams: Streams
    comparison: TokenDivergence | None
    own: torch.Tensor
    support: torch.Tensor | None
    denominators: Denominators
    step: int

    @classmethod
    def of(
        cls,
        learner: Learner[Distill],
        rollouts: Sequence[Rollout],
        step: Step,
        denominators: Denominators,
        teacher: Teacher,
        mixture: Mapping[str, float],
    ) -> MicroLoss:
        """That of some credited rollouts; `mixture` is that of the mini-batch."""
        device, config = learner.policy.model.device, learner.config
        prompts = [p.teacher_prompt for p in step.of(rollouts)]
        streams = flatten(rollouts, device)
        if mixture:
            factors = torch.tensor([mixture.get(r.source, 1.0) for r in rollouts]).to(device, non_blocking=True)
            weight = streams.teacher_weight * factors[streams.sequence_index]
            streams = replace(streams, teacher_weight=weight)
        comparison = compared(config.objective, rollouts, prompts, teacher, device)
        own = torch.tensor([r.source == "student" for r in rollouts]).to(device, non_blocking=True)
        support = support_of([r.completion for r in rollouts], device)
        return cls(
            config, rollouts, streams, comparison, own[streams.sequence_index], support, denominators, step.number
        )

    def read(self, learner: Learner[Distill], micro: MicroBatch) -> HeadOutput:
        """What the student's LM head says at the micro-batch's tokens, of whole distributions."""
        return learner.policy.read(
            micro.batch,
            temperature=self.config.sampling.temperature,
            candidates=self.support if self.comparison is None else self.comparison.candidates,
            against=None if self.comparison is None else self.comparison.against,
            loss_of=self.loss_of if self.config.objective.token_separable else None,
            learn_entropy=self.config.objective.entropy is not None and self.support is None,
        )

    def sampled(self, output: HeadOutput) -> HeadOutput:
        """The same of the distributions that were sampled from."""
        return output if self.support is None else narrowed(output)

    def total(self, output: HeadOutput, tokens: slice = slice(None)) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of some of its tokens and the sums that metrics are made of; see `vold.objective.total`."""
        output = self.sampled(output)
        divergence = None if self.comparison is None else self.comparison.stream(output, tokens)
        bonus = self.config.objective.entropy is not None
        streams = self.streams.at(tokens, output.logp, divergence, output.entropy if bonus else None)
        return total(self.config.objective, streams, self.denominators, self.step)

    def loss_of(self, tokens: slice, output: HeadOutput) -> torch.Tensor:
        """The loss alone, chunk by chunk, for the LM head's own gradient."""
        return self.total(output, tokens)[0]


@dataclass
class Tally:
    """Sums over the micro-batches of an update, and then over updates; those of several processes can be added up.

    Those of a micro-batch stay on the device until all are wanted (`merged`): a GPU's host waits for them once an
    update. `parts` are mini-batches, `updates` those of them with something to learn. `entropies` are kept of the
    rollouts whose `places` are given, by these; `read` are those that are still on the device.
    """

    loss: float = 0.0
    grad_norm: float = 0.0
    parts: int = 0
    updates: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    mismatch: Mismatch = field(default_factory=Mismatch)
    waiting: list[torch.Tensor] = field(default_factory=list)
    names: tuple[str, ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    entropies: dict[int, Values] = field(default_factory=dict)
    read: list[tuple[Sequence[Rollout], torch.Tensor]] = field(default_factory=list)

    def add(self, loss: torch.Tensor, sums: dict[str, torch.Tensor], output: HeadOutput, micro: MicroLoss) -> None:
        """Count a micro-batch."""
        values = {"loss": loss.detach(), **sums, "entropy_sum": output.entropy.detach().sum()}
        apart = distance(output.logp, micro.streams.behaviour_logp, micro.own)
        self.names = tuple(values)
        self.waiting.append(torch.cat([apart, torch.stack([v.double() for v in values.values()])]))
        self.sums["trained_tokens"] += len(output.logp)
        if self.places:
            self.read.append((micro.rollouts, output.entropy.detach().double()))

    def merged(self, group: Processes) -> Tally:
        """The sums of all processes together."""
        for row in self._waited_for():
            found = dict(zip(self.names, row[5:], strict=True))
            self.loss += found.pop("loss")
            self.sums.update(found)
            self.mismatch.add_distance(*row[:5])
        self.waiting, self.places, self.read = [], {}, []
        out = Tally()
        for theirs in group.gather(self):
            out.loss += theirs.loss
            out.sums.update(theirs.sums)
            out.mismatch.merge(theirs.mismatch)
            out.entropies |= theirs.entropies
        return out

    def _waited_for(self) -> list[list[float]]:
        """The rows of `waiting` on the host, and with them in one journey what was read of single rollouts."""
        if not self.waiting:
            return []
        size, entropies = sum(len(w) for w in self.waiting), [entropy for _, entropy in self.read]
        told = torch.cat([*self.waiting, *entropies]).cpu().numpy()
        read = [r for rollouts, _ in self.read for r in rollouts]
        ends = np.cumsum([np.count_nonzero(r.completion.action_mask) for r in read])
        parts = np.split(told[size:].astype("float32"), ends[:-1]) if read else []
        self.entropies |= {self.places[id(r)]: part for r, part in zip(read, parts, strict=True)}
        rows: list[list[float]] = told[:size].reshape(len(self.waiting), -1).tolist()
        return rows

    def take(self, update: Tally) -> None:
        """Count an update; how far apart sampler and trainer are is known of the first alone."""
        self.parts += 1
        self.loss += update.loss
        self.grad_norm += update.grad_norm
        self.updates += update.updates
        self.sums.update(update.sums)

    def gate(self, learner: Learner[Distill], step: Step) -> None:
        """Compare the distance of sampler and trainer with the limit of the recipe, and warn where it is above.

        Raises:
            TrainingError: it is so far above that the run has to stop.
        """
        gate = learner.config.mismatch
        if warning := self.mismatch.over(gate.limit, gate.action, step=step.number):
            console.print(f"warning: {warning}")

    def metrics(self, step: int, lr: float) -> UpdateMetrics:
        """The row of the step; without trained tokens nothing is known of entropy and mismatch. Losses are means over
        mini-batches, all else over tokens."""
        tokens, parts = int(self.sums["trained_tokens"]), max(1, self.parts)
        found = averages(self.sums)
        found |= {name: value / parts for name, value in found.items() if name.endswith("_loss")}
        if tokens:
            found |= {"entropy": self.sums["entropy_sum"] / tokens, **self.mismatch.row()}
        return UpdateMetrics(
            step=step,
            loss=self.loss / parts,
            grad_norm=self.grad_norm / max(1, self.updates),
            lr=lr,
            updates=self.updates,
            trained_tokens=tokens,
            **found,
        )
