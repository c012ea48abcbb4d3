"""Log-probs of rollouts by the student as it was: when the stage began (the reference), and when the step began."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from vold.errors import TrainingError
from vold.model.loading import load_student
from vold.model.place import one_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.policy import Policy
    from vold.run.recipe import Distill
    from vold.training.learner import Learner
    from vold.training.prompted import Step
    from vold.training.stage import Training
    from vold.types import Rollout, Values


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
            self.copy = load_student(run.stage.recipe, run.began_with)
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
            TrainingError: a log-prob is not finite.
        """
        if self.objective.reference is not None:
            without = contextlib.nullcontext() if self.copy is not None else self.learner.policy.without_adapters()
            with without:
                said = log_probs(self.learner, self.copy or self.learner.policy, rollouts, step)
            rollouts = [dataclasses.replace(r, reference_logp=said.get(i)) for i, r in enumerate(rollouts)]
        s, updates = self.objective.surrogate, self.learner.config.all_updates
        if s is not None and s.importance_cap is not None and updates.mini_batches * updates.epochs > 1:
            said = log_probs(self.learner, self.learner.policy, rollouts, step)
            rollouts = [dataclasses.replace(r, old_logp=said.get(i)) for i, r in enumerate(rollouts)]
        return rollouts


def log_probs(learner: Learner[Distill], policy: Policy, rollouts: Sequence[Rollout], step: Step) -> dict[int, Values]:
    """Log-probs [response] of the student's rollouts, by their places, under a policy as it is; NaN where a tool wrote.

    Every process has all rollouts, asks about its share and gets all answers.

    Raises:
        TrainingError: one is not finite.
    """
    own = [i for i, r in enumerate(rollouts) if r.source == "student"]
    made = [rollouts[i].completion for i in own]
    prompts = [p.prompt for p in step.of(rollouts[i] for i in own)]
    found: dict[int, Values] = {}
    for micro in learner.micro_batches(prompts, [c.ids for c in made], [c.action_mask for c in made]):
        with torch.no_grad():
            logp = policy.read(micro.batch, temperature=learner.config.sampling.temperature).logp.cpu().numpy()
        begin = 0
        for row in micro.rows:
            values = np.full(len(made[row].ids), np.nan, np.float32)
            end = begin + int(made[row].action_mask.sum())
            values[made[row].action_mask] = logp[begin:end]
            found[own[row]], begin = values, end
        if not np.isfinite(logp).all():
            raise TrainingError(
                "the student gives a token that it has sampled no finite log-prob",
                where=f"step {step.number}",
                fix="lower the learning rate, or look at the last stored rollouts with `vold show`",
            )
    return {i: values for part in learner.group.gather(found) for i, values in part.items()}
