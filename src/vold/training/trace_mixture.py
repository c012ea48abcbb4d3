"""GKD's mixture: in every step some prompts are answered by the student, and others come with the teacher's traces.

A step has round(λ · prompts_per_step) prompts of its own, but at least one of each kind for 0 < λ < 1. The rest of its
rollouts are distinct traces of the run (`vold traces`), drawn without replacement in an order that depends on the seed
alone. `vold.objective.credit` weighs the two parts by λ and 1 - λ whatever their sizes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vold.engines.grade import grade
from vold.run.order import seed_of
from vold.training.sft import pick, refuse_banned
from vold.training.traces import read_traces
from vold.types import Completion, Prompt, Rollout, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.model.policy import Policy
    from vold.run.recipe import Distill, Recipe
    from vold.training.traces import Trace


def own_prompts(config: Distill) -> int:
    """How many prompts of a step the student answers itself."""
    mix, prompts = config.objective.mix, config.prompts_per_step
    if mix is None:
        return prompts
    share = mix.student_share
    return round(share * prompts) if share in (0, 1) else min(max(1, round(share * prompts)), max(1, prompts - 1))


class Mixture:
    """The traces of a run, as rollouts to put among the student's own.

    Args:
        recipe: whose traces they are, filtered as for the cold start.
        policy: the student, whose chat template makes the prompts.
        ask: the teacher's prompt of a task, in its own chat template.

    Raises:
        DataError: there are no finished traces, or they hold tokens the student can never emit.
    """

    def __init__(self, recipe: Recipe, policy: Policy, ask: Callable[[Task], Prompt | None]) -> None:
        self.traces = read_traces(recipe)
        refuse_banned(self.traces, policy)
        self.seed, self.policy, self.ask = recipe.run.seed, policy, ask

    def step(
        self, config: Distill, step: int, first_group: int
    ) -> tuple[list[Rollout], list[Task], list[Prompt], list[Prompt | None]]:
        """The traces of one step: rollouts, and task, student's prompt and teacher's prompt of each, as groups of one
        numbered from `first_group`.

        Their behaviour log-probs are the teacher's own, filled in by `adopt` when it has scored them.
        """
        count = (config.prompts_per_step - own_prompts(config)) * config.rollouts
        chosen = pick(self.traces, count, seed=seed_of(self.seed, "mixture"), step=step)
        prompts = [self.policy.chat.prompt(t.task.messages) for t in chosen]
        rollouts = [self._rollout(t, p, first_group + i) for i, (t, p) in enumerate(zip(chosen, prompts, strict=True))]
        return rollouts, [t.task for t in chosen], prompts, [self.ask(t.task) for t in chosen]

    def _rollout(self, trace: Trace, prompt: Prompt, group: int) -> Rollout:
        ids = trace.response_ids
        completion = Completion(ids, (0.0,) * len(ids), trace.action_mask, "stop")
        verdict = grade(trace.task, self.policy.chat, completion)
        return Rollout(trace.task.id, group, prompt.ids, completion, verdict, source="teacher")


def adopt(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with the teacher's log-probs as behaviour log-probs of the traces it wrote."""
    return [
        dataclasses.replace(r, completion=dataclasses.replace(r.completion, logps=r.teacher.logp))
        if r.source == "teacher" and r.teacher is not None
        else r
        for r in rollouts
    ]
