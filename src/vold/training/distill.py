"""Stage 2: GRPO with the teacher term, on text prompts. One step, seven stops.

tasks -> rollouts -> grades -> teacher scores -> advantages -> micro-batches -> update
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from vold.engines.samplers.student import refuse_sleep
from vold.engines.teachers.teachers import no_teachers, open_teachers
from vold.model.loading import sft_result
from vold.model.parallel import processes
from vold.objective import credit
from vold.run.console import console
from vold.run.directory import works_in_run
from vold.run.metrics import DistillRow, PhaseSeconds
from vold.run.readiness import align_doubt
from vold.training.nodes import on_machines
from vold.training.problems import Problems
from vold.training.rollout_log import describe, store
from vold.training.scoring import Scoring
from vold.training.stage import Training, enter_stage, with_servers
from vold.training.step import update
from vold.training.turns import Turns, staleness

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.recipe import Distill, Recipe
    from vold.training.prompted import Step
    from vold.types import Rollout


@works_in_run("distill")
@on_machines("distill")
def distill(recipe: Recipe) -> Path:
    """Train the student on its own rollouts. Returns the directory of the model it ends with.

    Prompts and rollouts of a step depend on seed, step and weights alone, so a killed run goes on from its last
    checkpoint to the same weights.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError, TeacherError, SamplerError, TrainingError: see
            `vold.errors`.
    """
    _refuse(recipe)
    stage = enter_stage(recipe, "distill", recipe.distill)
    if stage.finished:
        return stage.final
    if (doubt := align_doubt(recipe)) is not None:
        console.print(Text.assemble(("warn  ", "bold yellow"), doubt))
    init, objective = stage.config.init, stage.config.objective
    with with_servers(stage) as stage, Training(stage, init or sft_result(recipe)) as run:
        if recipe.run.offload:
            run.place.take_turns()  # before teachers come
        teachers = open_teachers(stage.recipe, run.policy, contrast=True) if objective.uses_teacher else no_teachers()
        problems = Problems(run, teachers)
        teacher = Scoring(run, teachers, problems)
        with Turns(run, problems, teacher) as turns:
            for number in run.steps():
                with run.phase("sample"):
                    step, sampled, early = turns.take(number)  # 1 tasks, 2 rollouts, 3 grades
                with run.phase("teacher"):
                    rollouts = teacher.score(sampled.rollouts, step, early)  # 4 teacher scores
                    rollouts = credit(  # 5 advantages
                        objective, rollouts, number, seed=step.seed,
                        max_new_tokens=stage.config.sampling.max_new_tokens, token_texts=run.policy.chat.token_texts,
                    )  # fmt: skip
                stale = staleness(stage.config, rollouts, step)
                with run.phase("update"):
                    updated, kept = update(run.learner, rollouts, step, teacher.teacher)  # 6 micro-batches, 7 update
                    teacher.follow(updated.updates)
                looks = teacher.error.noted(describe(rollouts, sampled.dropped, sampled.silent, stale))
                _log(run, DistillRow.of(updated, looks, _seconds(run)), kept, step)
        return run.save()


def _refuse(recipe: Recipe) -> None:
    """What can never work, before anything is written."""
    if recipe.distill is not None:
        recipe.distill.objective.try_functions()
    refuse_sleep(recipe, processes(recipe.run.timeout_minutes))


def _seconds(run: Training[Distill]) -> PhaseSeconds:
    spent = run.seconds
    return PhaseSeconds(
        seconds_sample=spent["sample"], seconds_teacher=spent["teacher"], seconds_update=spent["update"]
    )


def _log(run: Training[Distill], row: DistillRow, rollouts: list[Rollout], step: Step) -> None:
    run.log(row, f"reward {row.reward:.2f}")
    if run.stage.group.first and run.stage.config.keeps(number := step.number):
        tasks = [p.task for p in step.prompted]
        run.show_rollouts(number, store(run.stage.directory / "rollouts", number, rollouts, tasks, run.policy))
