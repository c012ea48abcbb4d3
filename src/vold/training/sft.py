"""Stage 1, cold start: maximum likelihood on the teacher's traces (method.md of the docs, VOLD Eq. 4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vold.errors import ConfigError, DataError
from vold.model.batching import collate
from vold.model.loading import load_student
from vold.model.parallel import ALONE, Processes, processes
from vold.objective.losses import nll
from vold.run.console import Bar
from vold.run.directory import open_stage
from vold.run.files import append_jsonl, keep_rows, read_jsonl
from vold.run.order import epoch_indices, seed_of
from vold.training.checkpoint import restore_state, save_state
from vold.training.optim import apply_update, build_optimizer, check_finite, learning_rate
from vold.training.traces import read_traces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.run.recipe import Recipe
    from vold.training.traces import Trace


def sft(recipe: Recipe) -> Path:
    """Fine-tune the student on the run's traces. Returns the directory of the model it ends with.

    The batch of a step depends on seed and step alone, so a killed run goes on from its last checkpoint to the same
    weights.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see `vold.errors`.
    """
    config = recipe.sft
    if config is None:
        raise ConfigError("this recipe has no `sft` section", where="sft")
    group = processes()
    with group.first_goes_first():
        directory = open_stage(recipe, "sft")
    final = directory / "final"
    if final.is_dir():
        return final
    traces = read_traces(recipe)
    policy = load_student(recipe, train=True)
    refuse_banned(traces, policy)
    group.shard(policy, recipe.run.exchange)
    optimizer = build_optimizer(policy, config.optimizer)
    start = restore_state(directory, policy, optimizer)
    log = directory / "metrics.jsonl"
    if group.first:
        keep_rows(log, [r for r in read_jsonl(log) if r["step"] < start])
    with Bar("sft", config.steps, start) as bar:
        for step in range(start, config.steps):
            began = time.monotonic()
            part = pick(traces, config.batch_size, seed=recipe.run.seed, step=step)
            loss, tokens = accumulate(policy, part, config.token_budget, step=step, group=group)
            lr = learning_rate(config.optimizer, step, config.steps)
            norm = apply_update(policy, optimizer, lr=lr, max_grad_norm=config.optimizer.max_grad_norm)
            seconds = time.monotonic() - began
            row = {"step": step, "loss": loss, "grad_norm": norm, "lr": lr, "tokens": tokens, "seconds": seconds}
            if group.first:
                append_jsonl(log, [row])
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_state(directory, step + 1, policy, optimizer, group)
            bar.advance(note=f"loss {loss:.3f}")
    with group.new_directory(final) as d:
        policy.save(d)
    return final


def refuse_banned(traces: Sequence[Trace], policy: Policy) -> None:
    """Refuse traces that hold ids the student can never emit, such as a `<think>` its tokenizer does not know.

    Raises:
        DataError: naming the ids and how many traces hold them.
    """
    banned = set(policy.banned.tolist())
    found = [banned.intersection(t.response_ids) for t in traces]
    if any(found):
        ids = sorted(set().union(*found))
        raise DataError(
            "the teacher's traces hold tokens that this student can never emit",
            where=f"{sum(map(bool, found))} of {len(traces)} traces",
            got=f"ids {ids[:5]}",
            fix="set student.teacher_tokens=add, which needs embedding rows for them, or teacher.tokenizer=align, "
            "which writes them in the student's own pieces, and make the traces again",
        )


def pick(traces: Sequence[Trace], size: int, *, seed: int, step: int) -> list[Trace]:
    """The traces of one step: consecutive slices of a permutation that is drawn afresh for every pass."""
    return [traces[i] for i in epoch_indices(len(traces), size, seed_of(seed, "order"), step)]


def accumulate(
    policy: Policy, traces: Sequence[Trace], token_budget: int, *, step: int, group: Processes = ALONE
) -> tuple[float, int]:
    """Back-propagate the mean negative log-likelihood per token; returns its value (nats) and the token count.

    The mean is over all tokens of the step, however they are cut into micro-batches and divided over processes.
    """
    prompts = [policy.chat.prompt(t.task.messages) for t in traces]
    total = sum(sum(t.action_mask) for t in traces)
    value = 0.0
    cuts = policy.micro_batches(prompts, [len(t.response_ids) for t in traces], token_budget, group.world)
    for turn in group.rounds([sum(len(traces[i].response_ids) for i in cut) for cut in cuts]):
        cut = cuts[turn.number]
        responses = [traces[i].response_ids for i in cut]
        masks = [traces[i].action_mask for i in cut]
        batch = collate([prompts[i] for i in cut], responses, masks, policy.chat.pad_id)
        logp, _, _ = policy.logprobs(batch, loss_of=lambda _, reading: nll(reading.logp).sum() / total)
        loss = nll(logp).sum() / total
        check_finite(loss, step=step)
        group.backward(policy, loss, turn)
        value += loss.item() * turn.counts
    return sum(group.gather(value)), total
