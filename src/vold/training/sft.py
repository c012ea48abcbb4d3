"""Stage 1, cold start: maximum likelihood on the teacher's traces (method.md of the docs, VOLD Eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vold.errors import DataError
from vold.objective.losses import nll
from vold.run.directory import works_in_run
from vold.run.metrics import SftRow
from vold.run.order import epoch_indices, seed_of
from vold.training.nodes import on_machines
from vold.training.stage import Training, enter_stage, with_servers
from vold.training.traces import note_filters, read_traces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.run.recipe import Recipe, Sft
    from vold.training.learner import Learner
    from vold.training.traces import Trace


@works_in_run("sft")
@on_machines("sft")
def sft(recipe: Recipe) -> Path:
    """Fine-tune the student on the run's traces. Returns the directory of the model it ends with.

    The batch of a step depends on seed and step alone, so a killed run goes on from its last checkpoint to the same
    weights.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see `vold.errors`.
    """
    stage = enter_stage(recipe, "sft", recipe.sft)
    if stage.finished:
        return stage.final
    traces = read_traces(recipe)
    if stage.group.first:
        note_filters(recipe, traces)
    with with_servers(stage) as stage, Training(stage) as run:
        refuse_banned(traces, run.policy)
        for step in run.steps():
            part = pick(traces, stage.config.batch_size, seed=recipe.run.seed, step=step)
            with run.phase("update"):
                loss, tokens = accumulate(run.learner, part)
                norm = run.learner.apply_update(step, loss)
            seconds, lr = run.seconds["update"], run.learner.rate(step)
            row = SftRow(step=step, loss=loss, grad_norm=norm, lr=lr, tokens=tokens, seconds=seconds)
            run.log(row, f"loss {loss:.3f}")
        return run.save()


def refuse_banned(traces: Sequence[Trace], policy: Policy) -> None:
    """Refuse traces that hold ids the student can never emit, such as a `<think>` its tokenizer does not know.

    Raises:
        DataError: naming the ids and how many traces hold them, or the first row with an id that has no embedding.
    """
    for trace in traces:
        if max(trace.response_ids, default=0) >= policy.rows:
            raise DataError(
                "a trace holds a token that this student has no embedding for",
                where=trace.where,
                got=f"id {max(trace.response_ids)}, {policy.rows} rows",
                fix="make the traces again with this student",
            )
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


def accumulate(learner: Learner[Sft], traces: Sequence[Trace]) -> tuple[float, int]:
    """Back-propagate the mean negative log-likelihood per token; returns its value (nats) and the token count.

    The mean is over all tokens of the step, however they are cut into micro-batches and divided over processes.
    """
    prompts = [learner.policy.chat.prompt(t.task.messages) for t in traces]
    masks = [t.action_mask for t in traces]
    total, losses = sum(map(sum, masks)), list[torch.Tensor]()
    for micro in learner.micro_batches(prompts, [t.response_ids for t in traces], masks):
        logp, _, _ = learner.policy.logprobs(micro.batch, loss_of=lambda _, output: nll(output.logp).sum() / total)
        loss = nll(logp).sum() / total
        learner.backward(loss, micro)
        losses += [loss.detach()] * micro.turn.counts
    value = sum(torch.stack(losses).tolist()) if losses else 0.0
    return sum(learner.group.gather(value)), total
