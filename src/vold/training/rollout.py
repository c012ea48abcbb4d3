"""Sampling and grading the responses of a step (stops 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vold.engines.grade import grade
from vold.engines.samplers.multi_turn import tool_turns
from vold.engines.samplers.student import open_sampler
from vold.objective.signal import groups_that_teach
from vold.types import Rollout, StreamingSampler

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from vold.model.chat import Chat
    from vold.run.recipe import Distill
    from vold.training.prompted import Step
    from vold.training.stage import Training
    from vold.types import Completion, Sampler


class Sampled(NamedTuple):
    """The rollouts of a step.

    Attributes:
        rollouts: those it learns from, in order of their groups.
        dropped: those whose place further groups have taken.
        silent: how many groups that teach nothing are left among `rollouts`; None where nobody has looked.
    """

    rollouts: list[Rollout]
    dropped: list[Rollout]
    silent: int | None


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
        self.config, self.chat, self.group = stage.config, run.policy.chat, stage.group.beside()
        kept = self.config.ahead > 0
        self.engine = open_sampler(stage.config, run.policy, stage.directory, stage.group, kept=kept)
        self.sampler = tool_turns(stage.recipe)(self.engine, self.chat)

    def holding(self, step: Step) -> AbstractContextManager[None]:
        """Inside, a step is sampled from the weights that the student has at the beginning of the block.

        Raises:
            SamplerError: as `StudentSampler.holding`.
        """
        return self.engine.holding(step.version, pictures=any(p.prompt.vision for p in step.prompted))

    def sample(self, step: Step, whole: Callable[[list[Rollout]], None]) -> Sampled:
        """The rollouts of a step, on every process; each samples its share. To be called within `holding`.

        With `distill.refill`, problems in reserve are answered in place of groups that teach nothing, in each round as
        many as are missing, until none is or rounds or problems are at their end. What is missing then, the first of
        those groups make up. `whole` gets each group of this process as soon as it is sampled and graded.

        Raises:
            SamplerError: the sampler failed.
        """
        made, silent = list[Rollout](), list[int]()
        groups, reserve = range(step.own), range(len(step.prompted) - step.spare, len(step.prompted))
        for _ in range(1 + (self.config.refill or 0)):
            new = self._round(step, groups, whole)
            made += new
            missing = self._silent(new, groups, step)
            silent += missing
            groups, reserve = reserve[: len(missing)], reserve[len(missing) :]
            if not groups:
                break
        left = len({r.group for r in made}) - step.own
        dropped = set(silent[len(silent) - left :])
        kept = [r for r in made if r.group not in dropped] + step.traces
        return Sampled(
            sorted(kept, key=lambda r: r.group),
            [r for r in made if r.group in dropped],
            None if self.config.refill is None else len(silent) - left,
        )

    def _round(self, step: Step, groups: range, whole: Callable[[list[Rollout]], None]) -> list[Rollout]:
        """The rollouts of some groups, of which each process samples its share."""
        mine = self.group.share(len(groups))
        made = sample(self.sampler, self.chat, self.config, step, groups[mine.start : mine.stop], whole)
        return [r for part in self.group.gather(made) for r in part]

    def _silent(self, rollouts: list[Rollout], groups: range, step: Step) -> list[int]:
        """The groups that are to be replaced: those that teach nothing, where the recipe wants that."""
        if self.config.refill is None:
            return []
        teachable = [p.teacher_prompt is not None for p in step.of(rollouts)]
        budget = self.config.sampling.max_new_tokens
        taught = groups_that_teach(self.config.objective, rollouts, step.number, teachable, budget)
        return [g for g in groups if g not in taught]


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
    candidates = config.objective.needs.candidates
    params = config.sampling.params(step.seed, candidates=candidates, first_row=first_row, told=True)
    graded: dict[int, list[Rollout]] = {}

    def mark(place: int, completions: list[Completion]) -> None:
        group = groups[place]
        task, ids = step.prompted[group].task, step.prompted[group].prompt.ids
        graded[place] = [
            Rollout(task.id, group, ids, c, grade(task, chat, c), version=step.version, tags=task.tags)
            for c in completions
        ]
        whole(graded[place])

    prompts = [step.prompted[g].prompt for g in groups]
    if prompts and isinstance(sampler, StreamingSampler):
        sampler.stream(prompts, params, config.rollouts, mark)
    elif prompts:
        for place, completions in enumerate(sampler.generate(prompts, params, config.rollouts)):
            mark(place, completions)
    return [r for place in range(len(groups)) for r in graded[place]]
