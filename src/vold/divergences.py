"""The divergence of student and teacher at every token of a micro-batch, over the vocabulary or over candidates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch

from vold.distributions import Distributions, candidate_divergence, candidate_logprobs, divergence
from vold.errors import AlignmentError, ConfigError
from vold.losses import full_forward_kl, full_reverse_kl, jensen_shannon, stopped_reverse_kl
from vold.types import ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.distributions import Divergence
    from vold.objective import Objective
    from vold.policy import Policy
    from vold.slots import TeacherLoss
    from vold.types import Prompt, Rollout, Teacher


@runtime_checkable
class LogitTeacher(Protocol):
    """A teacher that gives whole distributions, which only one in this process can."""

    def distributions(self, requests: Sequence[ScoreRequest]) -> Distributions:
        """Those at every response token, request after request, without gradient."""
        ...


def refuse_without_logits(objective: Objective, teacher: Teacher) -> None:
    """Refuse a full-vocabulary loss with a teacher that gives log-probs of single tokens only.

    Raises:
        ConfigError: saying what can give logits.
    """
    if objective.needs.logits and not isinstance(teacher, LogitTeacher):
        slot = objective.teacher_loss
        raise ConfigError(
            "this loss compares whole distributions, and this teacher does not give them",
            where="distill.objective.teacher_loss.estimator",
            got=f"{slot.estimator if slot else ''} with {type(teacher).__name__}",
            fix="use a teacher in this process (teacher.path), or candidates: top_k: {k: 32, support: teacher}",
        )


def candidates_of(rollout: Rollout, k: int) -> tuple[tuple[int, ...], ...] | None:
    """The student's k likeliest ids at every token, as a teacher is asked about; zeros where a tool wrote. None if k
    is 0.

    Raises:
        AlignmentError: the sampler gave none, or too few.
    """
    if k == 0:
        return None
    completion = rollout.completion
    rows = completion.candidate_ids or ()
    if len(rows) != len(completion.ids) or any(
        len(row) < k for row, action in zip(rows, completion.action_mask, strict=True) if action
    ):
        raise AlignmentError(
            "the sampler gave no candidates for these tokens",
            where=f"task {rollout.task_id}",
            got=f"{len(rows)} rows for {len(completion.ids)} tokens, {k} candidates wanted",
            fix="use a sampler that reports its likeliest tokens, such as the one in this process",
        )
    return tuple(row[:k] if action else (0,) * k for row, action in zip(rows, completion.action_mask, strict=True))


def divergence_stream(
    objective: Objective,
    policy: Policy,
    states: torch.Tensor,
    rollouts: Sequence[Rollout],
    asks: Sequence[Prompt | None],
    teacher: Teacher | None,
    temperature: float,
) -> torch.Tensor | None:
    """D of every token for `vold.objective.Streams`; None for an objective that compares sampled tokens only.

    Args:
        objective: its `teacher_loss` says which divergence.
        policy: the student.
        states: [tokens, width] its states at the action tokens of the rollouts, with gradient.
        rollouts: of this micro-batch, credited.
        asks: [rollouts] the teacher's prompts.
        teacher: asked for distributions where the loss is over the whole vocabulary.
        temperature: of the rollouts.

    Returns:
        [tokens] float32 nats, 0 without gradient where the teacher has no weight.
    """
    slot = objective.teacher_loss
    if slot is None or not slot.over_vocabulary:
        return None
    weights = [w for r in rollouts for w, a in zip(r.teacher_weight or (), r.completion.action_mask, strict=True) if a]
    used = torch.tensor(weights, device=states.device) != 0
    if not bool(used.any()):
        return states.sum(-1).float() * 0.0
    student = Distributions(states, policy.model.get_output_embeddings(), policy.banned, temperature).at(used)
    if slot.top_k is None:
        values = divergence(student, _teacher_at(rollouts, asks, teacher), _compare(slot))
    else:
        ids, theirs = _candidates(slot, rollouts)
        mine = candidate_logprobs(student, ids.to(states.device))
        compare = stopped_reverse_kl if slot.top_k.form == "stop_gradient" else _compare(slot)
        values = candidate_divergence(mine, theirs.to(states.device), compare)
    return torch.zeros(len(states), device=states.device).masked_scatter(used, values)


def _compare(slot: TeacherLoss) -> Divergence:
    if slot.estimator == "jsd":
        return partial(jensen_shannon, beta=slot.teacher_share)
    return full_reverse_kl if slot.estimator == "reverse_kl" else full_forward_kl


def _teacher_at(rollouts: Sequence[Rollout], asks: Sequence[Prompt | None], teacher: Teacher | None) -> Distributions:
    """The teacher's distributions at the tokens with a weight, in the order of the student's."""
    heard = [(r, ask) for r, ask in zip(rollouts, asks, strict=True) if ask is not None and any(r.teacher_weight or ())]
    requests = [ScoreRequest(ask.ids, r.completion.ids, vision=ask.vision) for r, ask in heard]
    whole = cast("LogitTeacher", teacher).distributions(requests)
    weights = [w != 0 for r, _ in heard for w in r.teacher_weight or ()]
    return whole.at(torch.tensor(weights, device=whole.states.device))


def _candidates(slot: TeacherLoss, rollouts: Sequence[Rollout]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and the teacher's log-probs at the tokens with a weight, each [tokens, k]."""
    assert slot.top_k is not None
    k, ids, values = slot.top_k.k, [], []
    for r in rollouts:
        if r.teacher is None or not any(r.teacher_weight or ()):
            continue
        if slot.top_k.support == "student":
            rows, theirs = candidates_of(r, k), r.teacher.candidate_logp
        else:
            rows, theirs = r.teacher.top_ids, r.teacher.top_logp
        if rows is None or theirs is None or len(theirs) != len(r.completion.ids):
            raise AlignmentError(
                "the teacher has not scored the candidates it was asked about",
                where=f"task {r.task_id}",
                got="none" if theirs is None else f"{len(theirs)} rows for {len(r.completion.ids)} tokens",
                fix="use a teacher that answers candidate_ids and top_k, such as one in this process",
            )
        for t, weight in enumerate(r.teacher_weight or ()):
            if weight != 0:
                ids.append(rows[t][:k])
                values.append(theirs[t][:k])
    return torch.tensor(ids), torch.tensor(values)
