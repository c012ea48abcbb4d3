"""The divergence of student and teacher at every token of a micro-batch, over the vocabulary or over candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch

from vold.engines.teachers.ask import candidates_of, request_of
from vold.errors import AlignmentError, ConfigError
from vold.model.lm_head.fused_divergence import FullDivergence
from vold.model.lm_head.teacher_logits import ABSENT, Against, Distributions, candidate_divergence
from vold.objective.losses import stopped_reverse_kl
from vold.types import ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.model.lm_head.fused import HeadOutput
    from vold.model.lm_head.teacher_logits import Divergence
    from vold.objective import Objective
    from vold.objective.terms import TeacherLoss
    from vold.types import Flags, Prompt, Rollout, Teacher


@runtime_checkable
class LogitTeacher(Protocol):
    """A teacher that gives whole distributions, which only one in this process can."""

    def distributions(self, requests: Sequence[ScoreRequest]) -> Distributions:
        """Those at every response token, request after request, without gradient."""
        ...

    def keep_step(self) -> None:
        """Asked for nothing, where another process may ask for something."""
        ...


def refuse_without_logits(objective: Objective, teacher: Teacher) -> None:
    """Refuse a full-vocabulary loss with a teacher that gives log-probs of single tokens only.

    Raises:
        ConfigError: saying what can give logits.
    """
    term = objective.teacher_loss
    if term is not None and objective.needs.logits and not isinstance(teacher, LogitTeacher):
        raise ConfigError(
            "this loss compares whole distributions, and this teacher does not give them",
            where="distill.objective.teacher_loss.estimator",
            got=f"{term.estimator} with {type(teacher).__name__}",
            fix="use a teacher in this process (teacher.path), or candidates: top_k: {k: 32, support: teacher}",
        )


class TokenDivergence:
    """What a loss over the vocabulary or over candidates needs for one micro-batch: what the head must be asked, and
    how its answer becomes D of every token.

    Args:
        term: says which divergence.
        rollouts: of this micro-batch, credited.
        teacher_prompts: [rollouts] the teacher's prompts.
        teacher: asked for distributions where the loss is over the whole vocabulary.
        device: the student's.

    Attributes:
        candidates: [tokens, k] ids whose log-probs the head is asked for; None where the loss has none.
        against: the teacher that the head compares whole distributions with; None where the loss has candidates, or
            where no token has a weight.
    """

    def __init__(
        self,
        term: TeacherLoss,
        rollouts: Sequence[Rollout],
        teacher_prompts: Sequence[Prompt | None],
        teacher: Teacher,
        device: torch.device,
    ) -> None:
        self.candidates: torch.Tensor | None = None
        self.against: Against | None = None
        plain = FullDivergence(_kind(term), term.teacher_share)
        self._compare: Divergence = plain
        weighed = torch.from_numpy(np.concatenate([_weighed(r)[r.completion.action_mask] for r in rollouts]))
        if not bool(weighed.any()):
            if term.top_k is None:
                cast("LogitTeacher", teacher).keep_step()
            return
        if term.top_k is None:
            self.against = Against(_teacher_at(rollouts, teacher_prompts, teacher), weighed, plain)
            return
        ids, theirs = _candidates(term, rollouts)
        chosen = torch.zeros((len(weighed), term.top_k.k), dtype=torch.int64)
        chosen[weighed] = ids
        known = torch.full(chosen.shape, ABSENT)
        known[weighed] = theirs
        self.candidates, self._theirs = (t.to(device, non_blocking=True) for t in (chosen, known))
        if term.top_k.form == "stop_gradient":
            self._compare = stopped_reverse_kl

    def stream(self, output: HeadOutput, part: slice = slice(None)) -> torch.Tensor:
        """D of the tokens of `part` [part] in float32 nats, for `vold.objective.Streams`, from what the head has read
        there; 0 where the teacher has no weight."""
        if output.divergence is not None:
            return output.divergence
        if output.candidates is None:
            return torch.zeros_like(output.logp) + output.logp[:0].sum()  # 0, and can be back-propagated
        return candidate_divergence(output.candidates, self._theirs[part], self._compare)


def compared(
    objective: Objective,
    rollouts: Sequence[Rollout],
    teacher_prompts: Sequence[Prompt | None],
    teacher: Teacher,
    device: torch.device,
) -> TokenDivergence | None:
    """As `TokenDivergence`; None for an objective that compares sampled tokens only."""
    term = objective.teacher_loss
    if term is None or not term.over_vocabulary:
        return None
    return TokenDivergence(term, rollouts, teacher_prompts, teacher, device)


def _kind(term: TeacherLoss) -> Literal["reverse_kl", "forward_kl", "jsd"]:
    return cast("Literal['reverse_kl', 'forward_kl', 'jsd']", term.estimator)


def _teacher_at(
    rollouts: Sequence[Rollout], teacher_prompts: Sequence[Prompt | None], teacher: Teacher
) -> Distributions:
    """The teacher's distributions at the tokens with a weight, in the order of the student's."""
    pairs = zip(rollouts, teacher_prompts, strict=True)
    scored = [(r, prompt) for r, prompt in pairs if prompt is not None and _weighed(r).any()]
    requests = [request_of(prompt, r.completion.ids) for r, prompt in scored]
    whole = cast("LogitTeacher", teacher).distributions(requests)
    weighed = torch.cat([torch.tensor(_weighed(r)) for r, _ in scored])
    return whole.at(weighed)


def _weighed(rollout: Rollout) -> Flags:
    """[response] which tokens have a weight in the teacher loss."""
    weight = rollout.teacher_weight
    weighed: Flags = np.zeros(len(rollout.completion.ids), bool) if weight is None else weight != 0
    return weighed


def _candidates(term: TeacherLoss, rollouts: Sequence[Rollout]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and the teacher's log-probs at the tokens with a weight, each [tokens, k]."""
    assert term.top_k is not None
    k, ids, values = term.top_k.k, [], []
    for r in rollouts:
        weighed = _weighed(r)
        if r.teacher is None or not weighed.any():
            continue
        if term.top_k.support == "student":
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
        ids.append(rows[weighed, :k])
        values.append(theirs[weighed, :k])
    return torch.tensor(np.concatenate(ids), dtype=torch.int64), torch.tensor(np.concatenate(values))
