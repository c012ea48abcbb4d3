"""Log-probs of rollouts by the student as it was: when the stage began (the reference), and when the step began."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vold.errors import Diverged
from vold.model.loading import load_student
from vold.model.place import one_copy
from vold.model.support import narrowed, support_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.policy import Policy
    from vold.run.recipe import Distill
    from vold.training.learner import Learner, MicroBatch
    from vold.training.prompted import Step
    from vold.training.stage import Training
    from vold.types import Completion, Rollout, Values


class Earlier:
    """The student as it was, as far as the objective asks for it.

    Where adapters are all that is trained the reference is the student without them. Elsewhere it is a second copy of
    the weights that are trained; frozen ones are shared.

    Args:
        run: the stage.

    Attributes:
        copy: the reference; None where none is needed.
    """

    def __init__(self, run: Training[Distill]) -> None:
        self.learner, self.objective = run.learner, run.stage.config.objective
        self.copy: Policy | None = None
        if self.objective.reference is not None and not run.policy.only_adapters:
            self.copy = load_student(run.stage.recipe, run.began_with, group=run.stage.group)
            self.copy.model.requires_grad_(False)
            self.copy.model.eval()
            one_copy(self.copy.model, run.policy.model)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Models that this holds."""
        return [] if self.copy is None else [self.copy.model]

    def score(self, rollouts: list[Rollout], step: Step) -> list[Rollout]:
        """The rollouts with `reference_logp` and `old_logp` where the objective reads them: those that the student has
        sampled itself.

        The latter are not asked for where the step has one update, whose own log-probs they are.

        Raises:
            Diverged: a log-prob is not finite.
        """
        if self.objective.reference is not None:
            without = contextlib.nullcontext() if self.copy is not None else self.learner.policy.without_adapters()
            with without:
                rollouts = self._with("reference_logp", rollouts, step, self.copy or self.learner.policy)
        s, updates = self.objective.surrogate, self.learner.config.all_updates
        if s is not None and s.importance_cap is not None and updates.mini_batches * updates.epochs > 1:
            rollouts = self._with("old_logp", rollouts, step, self.learner.policy)
        return rollouts

    def _with(self, name: str, rollouts: Sequence[Rollout], step: Step, policy: Policy) -> list[Rollout]:
        """The rollouts, and under that name a policy's log-probs of the student's own."""
        own = [i for i, r in enumerate(rollouts) if r.source == "student"]
        out = list(rollouts)
        for i, values in zip(own, log_probs(self.learner, policy, [out[i] for i in own], step), strict=True):
            fields: dict[str, Any] = {name: values}
            out[i] = dataclasses.replace(out[i], **fields)
        return out


def log_probs(learner: Learner[Distill], policy: Policy, rollouts: Sequence[Rollout], step: Step) -> list[Values]:
    """Log-probs [response] of the student's rollouts under a policy as it is; NaN where a tool wrote.

    Every process has all rollouts, asks about its share and gets all answers.

    Raises:
        Diverged: one is not finite.
    """
    made, prompts = [r.completion for r in rollouts], [p.prompt for p in step.of(rollouts)]
    found: dict[int, Values] = {}
    for micro in learner.micro_batches(prompts, [c.ids for c in made], [c.action_mask for c in made]):
        here = [made[row] for row in micro.rows]
        logp = _read(policy, micro, here, learner.config.sampling.temperature)
        if not np.isfinite(logp).all():
            raise Diverged(
                "the student gives a token that it has sampled no finite log-prob",
                where=f"step {step.number}",
                fix="lower the learning rate, or look at the last stored rollouts with `vold show`",
            )
        ends = np.cumsum([int(c.action_mask.sum()) for c in here])
        for row, values in zip(micro.rows, np.split(logp, ends[:-1]), strict=True):
            found[row] = np.full(len(made[row].ids), np.nan, np.float32)
            found[row][made[row].action_mask] = values
    for part in learner.group.gather(found):
        found |= part
    return [found[i] for i in range(len(rollouts))]


def _read(policy: Policy, micro: MicroBatch, made: Sequence[Completion], temperature: float) -> Values:
    """[tokens] log-probs of a micro-batch, over the ids that were sampled from."""
    kept = support_of(made, policy.model.device)
    with torch.no_grad():
        read = policy.read(micro.batch, temperature=temperature, candidates=kept)
        logp: Values = (read if kept is None else narrowed(read)).logp.cpu().numpy()
    return logp
