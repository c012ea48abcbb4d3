"""Sampling and grading the responses of a step (stops 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.grade import grade
from vold.engines.samplers.multi_turn import tool_turns
from vold.engines.samplers.student import open_sampler
from vold.types import Rollout, SamplingParams, StreamingSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.model.chat import Chat
    from vold.run.recipe import Distill
    from vold.training.prompted import Step
    from vold.training.stage import Training
    from vold.types import Completion, Sampler


class StudentRollouts:
    """The student's graded responses, from its own process or from servers, with tools where the recipe has some.

    Args:
        run: the stage whose student samples.

    Raises:
        SamplerError: a server does not answer, or holds another model.
        ConfigError: responses do not fit into a server's context, or this machine cannot shut a program in.
    """

    def __init__(self, run: Training[Distill]) -> None:
        stage = run.stage
        self.config, self.chat, self.group = stage.config, run.policy.chat, stage.group
        self.engine = open_sampler(stage.config, run.policy, stage.directory, stage.group)
        self.sampler = tool_turns(stage.recipe)(self.engine, self.chat)

    def sample(self, step: Step, whole: Callable[[list[Rollout]], None]) -> list[Rollout]:
        """The rollouts of a step in order of their groups, on every process; each samples its share.

        `whole` gets each group of this process as soon as it is sampled and graded.

        Raises:
            SamplerError: the sampler failed.
        """
        with self.engine.holding(step.number):
            made = sample(self.sampler, self.chat, self.config, step, self.group.share(step.own), whole)
        made += step.traces[self.group.rank :: self.group.world]
        return sorted((r for part in self.group.gather(made) for r in part), key=lambda r: r.group)


def sample(
    sampler: Sampler,
    chat: Chat,
    config: Distill,
    step: Step,
    groups: range,
    whole: Callable[[list[Rollout]], None] = lambda rollouts: None,
) -> list[Rollout]:
    """`config.rollouts` graded responses to each prompt of `groups` (places in `step.prompted`), groups side by side.

    `whole` gets each group as soon as the sampler has made it and it is graded.
    """
    first_row = groups.start * config.rollouts
    sampling, candidates = config.sampling, config.objective.needs.candidates
    params = SamplingParams(sampling.max_new_tokens, sampling.temperature, step.seed, candidates, first_row)
    graded: dict[int, list[Rollout]] = {}

    def mark(place: int, completions: list[Completion]) -> None:
        group = groups[place]
        task, ids = step.prompted[group].task, step.prompted[group].prompt.ids
        graded[place] = [Rollout(task.id, group, ids, c, grade(task, chat, c)) for c in completions]
        whole(graded[place])

    prompts = [step.prompted[g].prompt for g in groups]
    if prompts and isinstance(sampler, StreamingSampler):
        sampler.stream(prompts, params, config.rollouts, mark)
    elif prompts:
        for place, completions in enumerate(sampler.generate(prompts, params, config.rollouts)):
            mark(place, completions)
    return [r for place in range(len(groups)) for r in graded[place]]
