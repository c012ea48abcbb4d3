"""The teacher's part in a step: log-probs of the rollouts whose scores count (stop 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.teachers.ask import EarlyTeacher, contrast_rollouts, decides_by_group, score_rollouts
from vold.engines.teachers.quantize_error import QuantizeErrors
from vold.engines.teachers.student import StudentBackend
from vold.errors import ConfigError
from vold.training.average import RunningAverage
from vold.training.earlier import Earlier
from vold.training.logit_distillation import refuse_without_logits
from vold.training.trace_mixture import adopt

if TYPE_CHECKING:
    from vold.engines.teachers.teachers import TeacherHandle, Teachers
    from vold.model.parallel import Processes
    from vold.run.recipe import Distill, Recipe
    from vold.run.teacher_sections import StudentTeaches
    from vold.training.problems import Problems
    from vold.training.prompted import Step
    from vold.training.stage import Training
    from vold.types import Rollout, Teacher


def refuse_uneven(recipe: Recipe, group: Processes) -> None:
    """Refuse a divided teacher that processes would ask for whole distributions unequally often.

    Raises:
        ConfigError: saying which key to change.
    """
    uneven = recipe.run.exchange == "step" and recipe.distill is not None and recipe.distill.objective.needs.logits
    if uneven and group.teachers_divided:
        raise ConfigError(
            "processes that divide a teacher must ask it equally often, and with run.exchange=step they have unequally "
            "many micro-batches",
            where="run.exchange",
            got=f"step, with a divided teacher that is asked in each micro-batch, in {group.world} processes",
            fix="set run.exchange=micro_batch, or run.shard_teacher=never if a whole teacher fits",
        )


def _early(run: Training[Distill], teachers: Teachers) -> bool:
    """Whether teachers score groups as they end: on servers they do, and in this process while servers sample. Where
    student and teacher are on one device they take turns, and so they do where an average takes the place of the
    student's weights, which a server that starts anew is given."""
    recipe, config, group = run.stage.recipe, run.stage.config, run.stage.group
    e = config.engine
    elsewhere = e is not None and not e.colocate and not e.sleep
    here = elsewhere and not recipe.run.offload and not group.teachers_divided
    here = here and not any(map(_averaged, teachers.by_route.values()))
    kinds = (h.backend.concurrent or (here and not h.backend.on_servers) for h in teachers.by_route.values())
    return bool(teachers.by_route) and all(kinds) and decides_by_group(config.objective)


class Scoring:
    """Teachers at work in stage 2.

    Args:
        run: the stage.
        teachers: of the recipe; none where the objective does not use any.
        problems: all there will be.

    Raises:
        ConfigError: the objective compares whole distributions, which this teacher does not give; or prompt and
            response do not fit into a server's context.
        TeacherError: a teacher is dead, without weights, or not the one this run began with.

    Attributes:
        teacher: scores requests; of several teachers, the one that the prompt is for.
        contrast: scores the same tokens again, where the objective asks for that.
        average: of the student's weights, where that is what teaches.
        earlier: the student as it was.
        error: how far quantised teachers are from what they were made from.
    """

    def __init__(self, run: Training[Distill], teachers: Teachers, problems: Problems) -> None:
        stage = run.stage
        config, self.group = stage.config, stage.group
        self.objective = config.objective
        prompts = map(teachers.prompt, problems.all_tasks())
        self.teacher = teachers.scorer(config.sampling, config.token_budget, prompts, stage.directory, self.group)
        refuse_without_logits(self.objective, self.teacher)
        refuse_uneven(stage.recipe, self.group)
        self._early, self._here = _early(run, teachers), not teachers.concurrent
        self.contrast: Teacher | None = None
        if teachers.contrast is not None:
            again = map(teachers.contrast.prompt, problems.all_tasks())
            self.contrast = teachers.contrast.scorer(
                config.sampling, config.token_budget, again, stage.directory, self.group
            )
        self.average = _average(run, teachers)
        self.error = QuantizeErrors(stage.recipe, config, stage.directory, teachers)
        self.earlier = Earlier(run)
        run.place.invite([*teachers.modules, *self.earlier.modules], run.policy.model, late=self.objective.needs.logits)

    def early(self, step: Step) -> EarlyTeacher:
        """A context in which whole groups can be handed to the teacher while others are still sampled."""
        teacher = self.teacher if self._early else None
        return EarlyTeacher(teacher, step.teacher_prompts, self.objective, here=self._here, group=self.group)

    @property
    def beside_sampling(self) -> bool:
        """Whether this thread scores what another one samples."""
        return self._early and self._here

    def score(self, rollouts: list[Rollout], step: Step, early: EarlyTeacher) -> list[Rollout]:
        """The rollouts with the scores of the teacher, and of the student as it was, where the objective will use them.
        `early` has some of the teacher's already.

        Raises:
            TeacherError, AlignmentError: the teacher failed, or its scores do not line up with a response.
            TrainingError: as `Earlier.score`.
            TrainingError: it is quantised, and too far from what it was made from.
        """
        self.error.compare(rollouts, step.teacher_prompts, self.group)
        said = early.finish()
        rollouts = self.earlier.score(rollouts, step)
        rollouts = score_rollouts(rollouts, self.teacher, step.teacher_prompts, self.objective, self.group, said)
        if self.contrast is not None:
            again = [p.contrast_prompt for p in step.prompted]
            rollouts = contrast_rollouts(rollouts, self.contrast, again, self.objective, self.group)
        return adopt(rollouts)

    def follow(self, updates: int) -> None:
        """Let a teacher that is an average of the student take in what so many updates have made."""
        if self.average is not None and updates:
            self.average.follow()


def _averaged(handle: TeacherHandle) -> StudentTeaches | None:
    """How a teacher that is an average of the student's weights is made; None of any other."""
    own = handle.told.student
    return own if own is not None and own.weights == "ema" else None


def _average(run: Training[Distill], teachers: Teachers) -> RunningAverage | None:
    """The running average that teachers are, in their place when they score; None where none is one."""
    for handle in teachers.by_route.values():
        own, backend = _averaged(handle), handle.backend
        if own is not None and isinstance(backend, StudentBackend):
            average = RunningAverage(run.policy, run.learner.optimizer, own.rate)
            backend.within = average.in_place
            return average
    return None
