"""Stage 2: GRPO with the teacher term, on text prompts. One step, seven stops.

tasks -> rollouts -> grades -> teacher scores -> advantages -> micro-batches -> update
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import torch

from vold.data.sources import open_tasks
from vold.engines.build import Teachers, open_sampler, refuse_sleep, turns_of
from vold.engines.teachers.ask import EarlyTeacher, consult, decides_by_group
from vold.errors import ConfigError, DataError
from vold.model.loading import load_student, resolve, sft_result
from vold.model.parallel import processes
from vold.objective import credit
from vold.run.console import Bar
from vold.run.directory import open_stage, record_data
from vold.run.files import append_jsonl, keep_rows, read_jsonl
from vold.run.order import epoch_indices, seed_of
from vold.training.checkpoint import StateKeeper, restore_state, save_state
from vold.training.logit_distillation import refuse_without_logits
from vold.training.offload import TimeShare, refuse_offload
from vold.training.optim import build_optimizer
from vold.training.rollout import sample
from vold.training.rollout_log import describe, store
from vold.training.step import update
from vold.training.trace_mixture import Mixture, adopt, own_prompts
from vold.types import Prompt

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.recipe import Recipe
    from vold.types import Teacher


def distill(recipe: Recipe) -> Path:
    """Train the student on its own rollouts. Returns the directory of the model it ends with.

    Prompts and rollouts of a step depend on seed, step and weights alone, so a killed run goes on from its last
    checkpoint to the same weights.

    Raises:
        ConfigError, DataError, VocabularyMismatch, CheckpointError, TeacherError, SamplerError, TrainingError: see
            `vold.errors`.
    """
    config = recipe.distill
    if config is None:
        raise ConfigError("this recipe has no `distill` section", where="distill")
    config.objective.try_functions()
    group = processes()
    refuse_sleep(recipe, group)
    refuse_offload(recipe, group)
    with group.first_goes_first():
        directory = open_stage(recipe, "distill")
    final = directory / "final"
    if final.is_dir():
        return final
    policy = load_student(recipe, resolve(config.init) if config.init else sft_result(recipe), train=True)
    tasks = open_tasks(recipe.tasks, config.tasks)
    if group.first:
        record_data(directory, "distill.tasks", tasks.cards)
    teacher: Teacher | None = None
    loaded: list[torch.nn.Module] = []
    at_once = False
    mixture: Mixture | None = None
    teacher_prompts: list[Prompt | None] = [None] * len(tasks)
    if config.objective.uses_teacher:
        teachers = Teachers(recipe, policy)
        loaded = teachers.models
        at_once = teachers.elsewhere and group.world == 1 and decides_by_group(config.objective)
        teacher_prompts = [teachers.ask(t) for t in tasks]
        if not any(teacher_prompts):
            raise DataError("no task has a text view, so the teacher can say nothing", where="distill.tasks")
        with group.first_goes_first():
            teacher = teachers.scorer(config.sampling, config.token_budget, teacher_prompts, directory)
        refuse_without_logits(config.objective, teacher)
        mixture = Mixture(recipe, policy, teachers.ask) if config.objective.mix is not None else None
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    one_turn, weights_are_of = open_sampler(config, policy, directory, group)
    sampler = turns_of(recipe)(one_turn, policy.chat)
    group.shard(policy, recipe.run.exchange)
    optimizer = build_optimizer(policy, config.optimizer)
    start = restore_state(directory, policy, optimizer)
    share = TimeShare(recipe.run.offload, optimizer, loaded, policy.model.device, late=config.objective.needs.logits)
    log = directory / "metrics.jsonl"
    if group.first:
        keep_rows(log, [r for r in read_jsonl(log) if r["step"] < start])
    with Bar("distill", config.steps, start) as bar, StateKeeper(directory, policy, optimizer, group) as keeper:
        for step in range(start, config.steps):
            chosen = epoch_indices(len(tasks), own_prompts(config), seed_of(recipe.run.seed, "prompts"), step)
            asked = [tasks[i] for i in chosen]
            shown = [prompts[i] for i in chosen]
            asks = [teacher_prompts[i] for i in chosen]
            began = time.monotonic()
            keeper.step = step
            share.rollouts()
            weights_are_of(step)
            seed = seed_of(recipe.run.seed, "rollouts", step)
            gathered = group.gathered(policy) if config.engine is None else contextlib.nullcontext()
            with EarlyTeacher(teacher if at_once else None, asks, config.objective) as early, gathered:
                rollouts = sample(policy, sampler, asked, shown, config, seed, group.share(len(chosen)), early.group)
            if mixture is not None:
                mixed = mixture.step(config, step, len(chosen))
                asked, shown, asks = asked + mixed[1], shown + mixed[2], asks + mixed[3]
                rollouts += mixed[0][group.rank :: group.world]
            sampled = time.monotonic()
            rollouts = sorted((r for part in group.gather(rollouts) for r in part), key=lambda r: r.group)
            if teacher is not None:
                share.scoring()
                rollouts = adopt(consult(rollouts, teacher, asks, config.objective, group, early.finish()))
            rollouts = credit(
                config.objective,
                rollouts,
                step,
                seed=seed,
                max_new_tokens=config.sampling.max_new_tokens,
                pieces=policy.chat.pieces,
            )
            share.update()
            consulted = time.monotonic()
            row = update(policy, optimizer, rollouts, shown, config, step, teacher, asks, group)
            row |= describe(rollouts)
            row |= {
                "seconds_sample": sampled - began,
                "seconds_teacher": consulted - sampled,
                "seconds_update": time.monotonic() - consulted,
            }
            if group.first:
                append_jsonl(log, [row])
            if group.first and (step % config.keep_rollouts_every == 0 or step + 1 == config.steps):
                store(directory / "rollouts" / f"step-{step:06d}.jsonl", rollouts, asked, policy)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_state(directory, step + 1, policy, optimizer, group)
            bar.advance(note=f"reward {row['reward']:.2f}")
    with group.new_directory(final) as d:
        policy.save(d)
    return final
