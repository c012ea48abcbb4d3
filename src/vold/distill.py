"""Stage 2: GRPO with the teacher term, on text prompts. One step, seven stops.

tasks -> rollouts -> grades -> teacher scores -> advantages -> micro-batches -> update
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vold.batching import collate
from vold.checkpoint import StateKeeper, restore_state, save_state
from vold.consulting import EarlyTeacher, consult, decides_by_group
from vold.divergences import Comparison, compared, refuse_without_logits
from vold.engines import Teachers, open_sampler, refuse_sleep, turns_of
from vold.errors import ConfigError, DataError
from vold.graders import get_grader
from vold.mismatch import Mismatch
from vold.mixing import Mixture, adopt, own_prompts
from vold.models import load_student, resolve, seed_of, sft_result
from vold.objective import Streams, averages, credit, token_counts, total
from vold.offload import TimeShare, refuse_offload
from vold.optim import apply_update, build_optimizer, check_finite, learning_rate
from vold.parallel import ALONE, Processes, processes
from vold.progress import Bar, console
from vold.rollouts import describe, store
from vold.rundir import append_jsonl, keep_rows, open_stage, read_jsonl, record_data
from vold.samplers.turns import last_turn
from vold.sft import epoch_indices
from vold.tasks import open_tasks
from vold.types import Prompt, Rollout, SamplingParams, StreamingSampler, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vold.config import Distill, Recipe
    from vold.head_pass import Reading
    from vold.objective import Denominators, Objective
    from vold.policy import Policy
    from vold.types import Completion, Sampler, Teacher


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
    tasks = open_tasks(config.tasks)
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
        grader = get_grader(task.grader)
        graded[place] = []
        for completion in completions:
            answer = policy.chat.text(last_turn(completion.ids, completion.action_mask))
            grade = grader(answer, task.reference, finish=completion.finish)
            graded[place].append(Rollout(task.id, group, prompt.ids, completion, grade))
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


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollouts: Sequence[Rollout],
    prompts: Sequence[Prompt],
    config: Distill,
    step: int,
    teacher: Teacher | None,
    asks: Sequence[Prompt | None],
    group: Processes = ALONE,
) -> dict[str, Any]:
    """One optimizer step on credited rollouts. Returns its metrics.

    `prompts` and `asks` are the student's and the teacher's prompts by group. Rollouts of a task without a text view
    (None in `asks`) do not dilute the teacher term. The teacher is asked again only for whole distributions.

    Rollouts that carry no signal (advantage zero everywhere, no teacher weight) take no part in the forward pass;
    the denominators count them all the same, so the gradient is that of the whole step. Every process has all rollouts
    and runs its share of the micro-batches.
    """
    objective, temperature = config.objective, config.sampling.temperature
    denominators = token_counts(
        objective,
        rollouts,
        teachable=[asks[r.group] is not None for r in rollouts],
        max_new_tokens=config.sampling.max_new_tokens,
    )
    active = [
        i
        for i, r in enumerate(rollouts)
        if any(r.advantage or ()) or any(r.live_weight or ()) or any(r.teacher_weight or ())
    ]
    lengths = [len(rollouts[i].completion.ids) for i in active]
    loss_value, mismatch, sums = 0.0, Mismatch(), Counter[str]()
    shown = [prompts[rollouts[i].group] for i in active]
    cuts = policy.micro_batches(shown, lengths, config.token_budget, group.world)
    for turn in group.rounds([sum(lengths[j] for j in cut) for cut in cuts]):
        part = [active[j] for j in cuts[turn.number]]
        batch = collate(
            [prompts[rollouts[i].group] for i in part],
            [rollouts[i].completion.ids for i in part],
            [rollouts[i].completion.action_mask for i in part],
            policy.chat.pad_id,
        )
        here = [rollouts[i] for i in part]
        comparison = compared(objective, here, [asks[r.group] for r in here], teacher, policy.model.device)
        micro = _MicroBatch(objective, flatten(rollouts, part, policy.model.device), comparison, denominators, step)
        reading = policy.read(
            batch,
            temperature=temperature,
            candidates=None if comparison is None else comparison.candidates,
            against=None if comparison is None else comparison.against,
            loss_of=micro.loss_of if objective.by_token else None,
        )
        streams, logp = micro.streams_of(reading), reading.logp
        loss, metrics = total(objective, streams, denominators, step)
        check_finite(loss, step=step)
        group.backward(policy, loss, turn)
        if not turn.counts:
            continue
        loss_value += loss.item()
        sums.update({k: float(v) for k, v in metrics.items()})
        sums.update({"entropy_sum": float(reading.entropy.sum()), "trained_tokens": len(logp)})
        own = torch.tensor([r.source == "student" for r in rollouts])[streams.sequence_index.cpu()].to(logp.device)
        mismatch.add(logp[own], streams.behaviour_logp[own])
    found = group.gather((loss_value, sums, mismatch))
    loss_value, sums, mismatch = sum(v for v, _, _ in found), Counter[str](), Mismatch()
    for _, theirs, apart in found:
        sums.update(theirs)
        mismatch.merge(apart)
    row: dict[str, Any] = {"step": step, "loss": loss_value, "grad_norm": 0.0}
    row["lr"] = learning_rate(config.optimizer, step, config.steps)
    if warning := mismatch.over(config.mismatch.limit, config.mismatch.action, step=step):
        console.print(f"[bold]warning[/bold]: {warning}")
    if active:  # with nothing to learn from, momentum alone must not move the weights
        norm = apply_update(policy, optimizer, lr=row["lr"], max_grad_norm=config.optimizer.max_grad_norm)
        row |= {"grad_norm": norm, "entropy": sums["entropy_sum"] / sums["trained_tokens"], **mismatch.row()}
    return row | averages(sums) | {"trained_tokens": int(sums["trained_tokens"])}


@dataclass(frozen=True, eq=False)
class _MicroBatch:
    """What turns a reading of the head into a loss; `streams` wait for their log-probs."""

    objective: Objective
    streams: Streams
    comparison: Comparison | None
    denominators: Denominators
    step: int

    def streams_of(self, reading: Reading, tokens: slice = slice(None)) -> Streams:
        divergence = None if self.comparison is None else self.comparison.stream(reading, tokens)
        return self.streams.at(tokens, reading.logp, divergence)

    def loss_of(self, tokens: slice, reading: Reading) -> torch.Tensor:
        return total(self.objective, self.streams_of(reading, tokens), self.denominators, self.step)[0]


def flatten(rollouts: Sequence[Rollout], part: Sequence[int], device: torch.device) -> Streams:
    """Per-token values of some rollouts, action tokens only, rollout after rollout. The log-probs at the time of
    sampling stand for those of the student until `Streams.at` brings them."""
    behaviour, advantage, live, teacher, weight, index, length = [], [], [], [], [], [], []
    for i in part:
        r = rollouts[i]
        actions = [t for t, a in enumerate(r.completion.action_mask) if a]
        behaviour += [r.completion.logps[t] for t in actions]
        advantage += [r.advantage[t] if r.advantage else 0.0 for t in actions]
        teacher += [r.teacher.logp[t] if r.teacher is not None else float("nan") for t in actions]
        live += [r.live_weight[t] if r.live_weight else 0.0 for t in actions]
        weight += [r.teacher_weight[t] if r.teacher_weight else 0.0 for t in actions]
        index += [i] * len(actions)
        length += [len(actions)] * len(actions)
    sampled = torch.tensor(behaviour, device=device)
    return Streams(
        logp=sampled,
        behaviour_logp=sampled,
        advantage=torch.tensor(advantage, device=device),
        teacher_logp=torch.tensor(teacher, device=device),
        teacher_weight=torch.tensor(weight, device=device),
        sequence_index=torch.tensor(index, device=device),
        sequence_length=torch.tensor(length, device=device),
        live_weight=torch.tensor(live, device=device) if any(live) else None,
    )
