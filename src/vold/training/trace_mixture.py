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
from vold.training.prompted import Prompted
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


class TraceMixture:
    """The traces of a run, as rollouts to put among the student's own.

    Args:
        recipe: whose traces they are, filtered as for the cold start.
        policy: the student, whose chat template makes the prompts.
        teacher_prompt: makes the teacher's prompt of a task, in its own chat template.

    Raises:
        DataError: there are no finished traces, or they hold tokens the student can never emit.
    """

    def __init__(self, recipe: Recipe, policy: Policy, teacher_prompt: Callable[[Task], Prompt | None]) -> None:
        self.traces = read_traces(recipe)
        refuse_banned(self.traces, policy)
        self.seed, self.chat, self.teacher_prompt = recipe.run.seed, policy.chat, teacher_prompt

    def step(self, config: Distill, number: int, first_group: int) -> tuple[list[Prompted], list[Rollout]]:
        """The traces of one step: each a problem of its own, and a rollout in the group of that problem, numbered from
        `first_group`.

        Their behaviour log-probs are the teacher's own, filled in by `adopt` when it has scored them.
        """
        count = (config.prompts_per_step - own_prompts(config)) * config.rollouts
        chosen = pick(self.traces, count, seed=seed_of(self.seed, "mixture"), step=number)
        tasks = [trace.task for trace in chosen]
        prompted = [Prompted(t, self.chat.prompt(t.messages, t.id), self.teacher_prompt(t)) for t in tasks]
        pairs = enumerate(zip(chosen, prompted, strict=True), first_group)
        return prompted, [self._rollout(trace, p.prompt, group) for group, (trace, p) in pairs]

    def _rollout(self, trace: Trace, prompt: Prompt, group: int) -> Rollout:
        ids = trace.response_ids
        completion = Completion(ids, (0.0,) * len(ids), trace.action_mask, "stop")
        verdict = grade(trace.task, self.chat, completion)
        return Rollout(trace.task.id, group, prompt.ids, completion, verdict, source="teacher", tags=trace.task.tags)


def adopt(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with the teacher's log-probs as behaviour log-probs of the traces it wrote."""
    return [
        dataclasses.replace(r, completion=dataclasses.replace(r.completion, logps=r.teacher.logp))
        if r.source == "teacher" and r.teacher is not None
        else r
        for r in rollouts
    ]
