"""Stage 2: GRPO with the teacher term, on text prompts. One step, seven stops.

tasks -> rollouts -> grades -> teacher scores -> advantages -> micro-batches -> update
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from vold.batching import collate, micro_batches
from vold.checkpoint import restore_state, save_state
from vold.errors import AlignmentError, ConfigError, DataError
from vold.graders import get_grader, outcome
from vold.models import load_student, load_teacher, resolve, seed_of, sft_result
from vold.objective import Streams, averages, credit, needs_teacher, teacher_weights, token_counts, total
from vold.optim import apply_update, build_optimizer, check_finite, learning_rate
from vold.progress import Bar
from vold.rundir import append_jsonl, keep_rows, new_directory, open_stage, read_jsonl, write_text
from vold.samplers.inprocess import InProcessSampler
from vold.sft import epoch_indices
from vold.tasks import open_tasks
from vold.teachers.inprocess import InProcessTeacher
from vold.types import Prompt, Rollout, SamplingParams, ScoreRequest, Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.config import Distill, Recipe
    from vold.objective import Objective
    from vold.policy import Policy
    from vold.types import Sampler, Teacher


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
    directory = open_stage(recipe, "distill")
    final = directory / "final"
    if final.is_dir():
        return final
    policy = load_student(recipe, resolve(config.init) if config.init else sft_result(recipe))
    policy.model.train()
    tasks = open_tasks(config.tasks)
    teacher: Teacher | None = None
    teacher_prompts: list[tuple[int, ...] | None] = [None] * len(tasks)
    if config.objective.uses_teacher:
        model = load_teacher(recipe, policy)
        teacher = InProcessTeacher(model, temperature=config.sampling.temperature, token_budget=config.token_budget)
        teacher_prompts = [model.chat.prompt(t.teacher_messages).ids if t.teacher_messages else None for t in tasks]
        if not any(teacher_prompts):
            raise DataError("no task has a text view, so the teacher can say nothing", where="distill.tasks")
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    sampler = InProcessSampler(policy, config.prompts_per_step * config.rollouts)
    optimizer = build_optimizer(policy, config.optimizer)
    start = restore_state(directory, policy, optimizer)
    log = directory / "metrics.jsonl"
    keep_rows(log, [r for r in read_jsonl(log) if r["step"] < start])
    with Bar("distill", config.steps, start) as bar:
        for step in range(start, config.steps):
            chosen = epoch_indices(len(tasks), config.prompts_per_step, seed_of(recipe.run.seed, "prompts"), step)
            began = time.monotonic()
            seed = seed_of(recipe.run.seed, "rollouts", step)
            rollouts = sample(policy, sampler, [tasks[i] for i in chosen], [prompts[i] for i in chosen], config, seed)
            sampled = time.monotonic()
            if teacher is not None:
                rollouts = consult(rollouts, teacher, [teacher_prompts[i] for i in chosen], config.objective)
            advantages = credit(config.objective, rollouts, step)
            rollouts = [dataclasses.replace(r, advantage=a) for r, a in zip(rollouts, advantages, strict=True)]
            consulted = time.monotonic()
            teachable = [teacher_prompts[chosen[r.group]] is not None for r in rollouts]
            row = update(policy, optimizer, rollouts, [prompts[i] for i in chosen], config, step, teachable)
            row |= describe(rollouts)
            row |= {
                "seconds_sample": sampled - began,
                "seconds_teacher": consulted - sampled,
                "seconds_update": time.monotonic() - consulted,
            }
            append_jsonl(log, [row])
            if step % config.keep_rollouts_every == 0 or step + 1 == config.steps:
                store(directory / "rollouts" / f"step-{step:06d}.jsonl", rollouts, chosen, tasks, policy)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_state(directory, step + 1, policy, optimizer)
            bar.advance(note=f"reward {row['reward']:.2f}")
    with new_directory(final) as d:
        policy.save(d)
    return final


def sample(
    policy: Policy, sampler: Sampler, tasks: Sequence[Task], prompts: Sequence[Prompt], config: Distill, seed: int
) -> list[Rollout]:
    """`config.rollouts` graded responses to each prompt, groups side by side."""
    params = SamplingParams(config.sampling.max_new_tokens, config.sampling.temperature, seed)
    rollouts = []
    for group, (task, prompt, completions) in enumerate(
        zip(tasks, prompts, sampler.generate(prompts, params, config.rollouts), strict=True)
    ):
        grader = get_grader(task.grader)
        for completion in completions:
            grade = grader(policy.chat.text(completion.ids), task.reference, finish=completion.finish)
            rollouts.append(Rollout(task.id, group, prompt.ids, completion, grade))
    return rollouts


def consult(
    rollouts: list[Rollout], teacher: Teacher, prompts: Sequence[tuple[int, ...] | None], objective: Objective
) -> list[Rollout]:
    """Ask the teacher about just those rollouts whose scores the objective will use.

    Raises:
        AlignmentError: the teacher returned another number of scores than there are tokens.
    """
    wanted = needs_teacher(objective, [r.grade.score for r in rollouts], [r.group for r in rollouts])
    asked = [(i, p) for i, r in enumerate(rollouts) if wanted[i] and (p := prompts[r.group]) is not None]
    requests = [ScoreRequest(p, rollouts[i].completion.ids) for i, p in asked]
    out = list(rollouts)
    for (i, _), request, scores in zip(asked, requests, teacher.score(requests), strict=True):
        if len(scores.logp) != len(request.response_ids):
            raise AlignmentError(
                "the teacher's scores do not line up with the response",
                where=f"task {rollouts[i].task_id}",
                got=f"{len(scores.logp)} scores for {len(request.response_ids)} tokens",
            )
        out[i] = dataclasses.replace(rollouts[i], teacher=scores)
    return out


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollouts: Sequence[Rollout],
    prompts: Sequence[Prompt],
    config: Distill,
    step: int,
    teachable: Sequence[bool],
) -> dict[str, Any]:
    """One optimizer step on graded rollouts. Returns its metrics.

    `teachable` says which rollouts belong to a task with a text view; the others do not dilute the teacher term.

    Rollouts that carry no signal (advantage zero everywhere, no teacher weight) take no part in the forward pass;
    the denominators count them all the same, so the gradient is that of the whole step.
    """
    objective = config.objective
    denominators = token_counts(objective, rollouts, teachable=teachable)
    weights = teacher_weights(objective, rollouts)
    active = [
        i for i, r in enumerate(rollouts) if any(r.advantage or ()) or (weights[i] != 0 and r.teacher is not None)
    ]
    lengths = [len(rollouts[i].prompt_ids) + len(rollouts[i].completion.ids) for i in active]
    loss_value, mismatch, sums = 0.0, 0.0, Counter[str]()
    for group in micro_batches(lengths, config.token_budget):
        part = [active[j] for j in group]
        batch = collate(
            [prompts[rollouts[i].group] for i in part],
            [rollouts[i].completion.ids for i in part],
            [rollouts[i].completion.action_mask for i in part],
            policy.chat.pad_id,
        )
        logp, entropy, _ = policy.logprobs(batch, temperature=config.sampling.temperature)
        streams = flatten(rollouts, part, weights, logp)
        loss, metrics = total(objective, streams, denominators, step)
        check_finite(loss, step=step)
        loss.backward()
        loss_value += loss.item()
        sums.update({k: float(v) for k, v in metrics.items()})
        sums.update({"entropy_sum": float(entropy.sum()), "trained_tokens": len(logp)})
        mismatch = max(mismatch, float((logp.detach() - streams.behaviour_logp).abs().max()))
    row: dict[str, Any] = {"step": step, "loss": loss_value, "grad_norm": 0.0}
    row["lr"] = learning_rate(config.optimizer, step, config.steps)
    if active:  # with nothing to learn from, momentum alone must not move the weights
        norm = apply_update(policy, optimizer, lr=row["lr"], max_grad_norm=config.optimizer.max_grad_norm)
        row |= {"grad_norm": norm, "entropy": sums["entropy_sum"] / sums["trained_tokens"], "mismatch": mismatch}
    return row | averages(sums) | {"trained_tokens": int(sums["trained_tokens"])}


def flatten(rollouts: Sequence[Rollout], part: Sequence[int], weights: Sequence[float], logp: torch.Tensor) -> Streams:
    """Per-token values of some rollouts, action tokens only, in the order of `logp`."""
    behaviour, advantage, teacher, weight, index, length = [], [], [], [], [], []
    for i in part:
        r = rollouts[i]
        actions = [t for t, a in enumerate(r.completion.action_mask) if a]
        scored = r.teacher is not None
        behaviour += [r.completion.logps[t] for t in actions]
        advantage += [r.advantage[t] if r.advantage else 0.0 for t in actions]
        teacher += [r.teacher.logp[t] if r.teacher is not None else float("nan") for t in actions]
        weight += [weights[i] if scored else 0.0] * len(actions)
        index += [i] * len(actions)
        length += [len(actions)] * len(actions)
    device = logp.device
    return Streams(
        logp=logp,
        behaviour_logp=torch.tensor(behaviour, device=device),
        advantage=torch.tensor(advantage, device=device),
        teacher_logp=torch.tensor(teacher, device=device),
        teacher_weight=torch.tensor(weight, device=device),
        sequence_index=torch.tensor(index, device=device),
        sequence_length=torch.tensor(length, device=device),
    )


def describe(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """What a step's rollouts looked like: reward, outcomes, lengths, and how much the teacher was asked."""
    scores: dict[int, list[float]] = {}
    for r in rollouts:
        scores.setdefault(r.group, []).append(r.grade.score)
    counts = Counter(outcome(r.grade, r.completion.finish) for r in rollouts)
    tokens = [len(r.completion.ids) for r in rollouts]
    return {
        "reward": sum(r.grade.score for r in rollouts) / len(rollouts),
        **{f"share_{name}": counts[name] / len(rollouts) for name in ("wrong", "unparsed", "truncated", "timed_out")},
        "groups_all_pass": sum(all(s == 1 for s in g) for g in scores.values()) / len(scores),
        "groups_all_fail": sum(all(s == 0 for s in g) for g in scores.values()) / len(scores),
        "mean_tokens": sum(tokens) / len(tokens),
        "rollout_tokens": sum(tokens),
        "teacher_tokens": sum(len(r.teacher.logp) for r in rollouts if r.teacher is not None),
    }


def store(
    file: Path, rollouts: Sequence[Rollout], chosen: Sequence[int], tasks: Sequence[Task], policy: Policy
) -> None:
    """Write every rollout of a step with all its token values, for `vold show` and the report."""
    lines = []
    for r in rollouts:
        task = tasks[chosen[r.group]]
        c = r.completion
        lines.append(
            json.dumps(
                {
                    "task_id": r.task_id,
                    "group": r.group,
                    "prompt": task.messages[-1].text,
                    "reference": task.reference,
                    "tokens": [policy.chat.tokenizer.decode([i]) for i in c.ids],
                    "ids": list(c.ids),
                    "finish": c.finish,
                    "score": r.grade.score,
                    "extracted": r.grade.extracted,
                    "note": r.grade.note,
                    "logp": list(c.logps),
                    "teacher_logp": None if r.teacher is None else [max(v, -1e9) for v in r.teacher.logp],
                    "advantage": list(r.advantage or ()),
                }
            )
        )
    write_text(file, "\n".join(lines) + "\n")
