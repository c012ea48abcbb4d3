"""Sampling and marking the responses of a step (stops 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.grade import grade
from vold.types import Prompt, Rollout, SamplingParams, StreamingSampler, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.model.policy import Policy
    from vold.run.recipe import Distill
    from vold.types import Completion, Sampler


def sample(
    policy: Policy,
    sampler: Sampler,
    tasks: Sequence[Task],
    prompts: Sequence[Prompt],
    config: Distill,
    seed: int,
    groups: range | None = None,
    whole: Callable[[list[Rollout]], None] | None = None,
) -> list[Rollout]:
    """`config.rollouts` graded responses to each prompt of `groups` (places in `prompts`; all), groups side by side.

    `whole` hears of each group as soon as the sampler has made it and it is graded.
    """
    groups = range(len(prompts)) if groups is None else groups
    candidates = config.objective.needs.candidates
    first_row = groups.start * config.rollouts
    params = SamplingParams(config.sampling.max_new_tokens, config.sampling.temperature, seed, candidates, first_row)
    graded: dict[int, list[Rollout]] = {}

    def mark(place: int, completions: list[Completion]) -> None:
        group = groups[place]
        task, prompt = tasks[group], prompts[group]
        graded[place] = [Rollout(task.id, group, prompt.ids, c, grade(task, policy.chat, c)) for c in completions]
        if whole is not None:
            whole(graded[place])

    if groups:
        asked = [prompts[g] for g in groups]
        if isinstance(sampler, StreamingSampler):
            sampler.stream(asked, params, config.rollouts, mark)
        else:
            for place, completions in enumerate(sampler.generate(asked, params, config.rollouts)):
                mark(place, completions)
    return [r for place in range(len(groups)) for r in graded[place]]
