"""Asking the teacher about the rollouts whose scores count, while others still generate where that pays."""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from vold.errors import AlignmentError
from vold.model.lookout import joined, taken
from vold.model.parallel import ALONE, Processes
from vold.objective import needs_teacher
from vold.objective.credit import line_up
from vold.types import Prompt, Rollout, ScoreRequest
from vold.types.named import is_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.objective import Objective
    from vold.types import Ids, Teacher, TokenScores

Key = tuple[object, ...]
"""What the teacher's scores depend on: its prompt, the response and the candidates."""


def score_rollouts(
    rollouts: list[Rollout],
    teacher: Teacher,
    prompts: Sequence[Prompt | None],
    objective: Objective,
    group: Processes = ALONE,
    early: Mapping[Key, TokenScores] = MappingProxyType({}),
) -> list[Rollout]:
    """Ask the teacher about just those rollouts whose scores the objective will use.

    Which these are may depend on all rollouts of the step. Every process has them and asks about its share. `early`
    has what teachers have said already (`EarlyTeacher.finish`), on all processes the same.

    Raises:
        AlignmentError: the teacher returned another number of scores than there are tokens.
    """
    wanted = _requests(rollouts, prompts, objective)
    scored = {i: early[key] for i, r in wanted if (key := _key(r)) in early} if early else {}
    out = list(rollouts)
    for i, scores in _asked(wanted, rollouts, teacher, group, scored).items():
        out[i] = dataclasses.replace(rollouts[i], teacher=scores)
    return out


def contrast_rollouts(
    rollouts: list[Rollout],
    teacher: Teacher,
    prompts: Sequence[Prompt | None],
    objective: Objective,
    group: Processes = ALONE,
) -> list[Rollout]:
    """As `score_rollouts`, the second score of the sampled tokens: `Rollout.contrast_logp`."""
    asked = needs_teacher(objective, rollouts)
    wanted = [(i, _request(r, p)) for i, r in enumerate(rollouts) if asked[i] and (p := prompts[r.group]) is not None]
    out = list(rollouts)
    for i, scores in _asked(wanted, rollouts, teacher, group, {}).items():
        out[i] = dataclasses.replace(rollouts[i], contrast_logp=scores.logp)
    return out


def _asked(
    wanted: Sequence[tuple[int, ScoreRequest]],
    rollouts: Sequence[Rollout],
    teacher: Teacher,
    group: Processes,
    scored: dict[int, TokenScores],
) -> dict[int, TokenScores]:
    """Scores by the place of a rollout, on every process: those that there are, and what the teacher says of the rest,
    of which each process asks about its share."""
    rest = [(i, r) for i, r in wanted if i not in scored][group.rank :: group.world]
    for (i, _), scores in zip(rest, teacher.score([r for _, r in rest]), strict=True):
        line_up(rollouts[i], scores)
        scored[i] = scores
    return {i: scores for part in group.gather(scored) for i, scores in part.items()}


def decides_by_group(objective: Objective) -> bool:
    """Whether an objective's masks need nothing but a rollout's own group to say if the teacher is asked about it. All
    but functions of the user's own do."""
    return not any(is_named(term.mask or "none") for term in objective.teacher_terms)


class EarlyTeacher:
    """Asks a teacher about the rollouts of each group as soon as the group is whole.

    What is asked is what `score_rollouts` would ask later. A teacher that works elsewhere is asked by a thread, about
    all that has come up to then; `finish` waits for it. One in this process is asked by `finish`, group by group, so
    that what shares a pass, and with it the last bit of a score, does not hang on who was quick: groups come from
    another thread then. With no teacher nothing is done. Leaving the `with` block ends it when what waits has been
    asked.

    Args:
        teacher: see above.
        prompts: of the step's groups.
        objective: says whether, and what.
        here: the teacher is in this process.
        group: the processes that train, all of which call `finish`; each has asked about groups of its own.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        prompts: Sequence[Prompt | None],
        objective: Objective,
        *,
        here: bool = False,
        group: Processes = ALONE,
    ) -> None:
        self.teacher, self.prompts, self.objective, self.here, self.processes = teacher, prompts, objective, here, group
        self._waiting: queue.SimpleQueue[list[Rollout] | None] = queue.SimpleQueue()
        self._said: dict[Key, TokenScores] = {}
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._finished = False

    def __enter__(self) -> EarlyTeacher:
        if self.teacher is not None and not self.here:
            # A daemon: where sampling fails nobody waits for answers.
            self._thread = threading.Thread(target=self._work, args=(self.teacher,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)

    def group(self, rollouts: list[Rollout]) -> None:
        """Take the graded rollouts of a whole group."""
        self._waiting.put(rollouts)

    def finish(self) -> dict[Key, TokenScores]:
        """All that the teacher has said, on all processes, when it has answered. To be called after the block.

        Raises:
            TeacherError, AlignmentError: as the teacher does.
        """
        if self.teacher is None:
            return {}
        self.ask(self.teacher)
        return {key: scores for said in self.processes.gather(self._said) for key, scores in said.items()}

    def ask(self, teacher: Teacher) -> None:
        """Come back when it has answered this process. One in this process may be asked beside the block, where groups
        come from another thread: without a word to other processes, as that thread may have ended in an error.

        Raises:
            TeacherError, AlignmentError: as the teacher does.
        """
        if self._thread is not None:
            joined(self._thread)
        elif not self._finished:
            self._finished = True
            self._work(teacher)
        if self._error is not None:
            raise self._error

    def _work(self, teacher: Teacher) -> None:
        last = False
        while not last:
            rollouts: list[Rollout] = []
            found = taken(self._waiting)
            while found is not None:
                rollouts += found
                if self.here:
                    break
                try:
                    found = self._waiting.get_nowait()
                except queue.Empty:
                    break
            last = found is None
            try:
                asked = _requests(rollouts, self.prompts, self.objective)
                for (i, request), scores in zip(asked, teacher.score([r for _, r in asked]), strict=True):
                    line_up(rollouts[i], scores)
                    self._said[_key(request)] = scores
            except BaseException as error:
                self._error = error
                return


def _requests(
    rollouts: Sequence[Rollout], prompts: Sequence[Prompt | None], objective: Objective
) -> list[tuple[int, ScoreRequest]]:
    k, top_k = objective.needs.candidates, objective.needs.top_k
    return [
        (i, _request(r, p, k, top_k))
        for i, (r, wanted) in enumerate(zip(rollouts, needs_teacher(objective, rollouts), strict=True))
        if wanted and (p := prompts[r.group]) is not None
    ]


def _request(rollout: Rollout, prompt: Prompt, candidates: int = 0, top_k: int = 0) -> ScoreRequest:
    return request_of(prompt, rollout.completion.ids, candidates_of(rollout, candidates), top_k)


def request_of(
    prompt: Prompt, response_ids: Sequence[int] | Ids, candidate_ids: Ids | None = None, top_k: int = 0
) -> ScoreRequest:
    """What the teacher of a prompt is asked about a response to it."""
    return ScoreRequest(prompt.ids, response_ids, candidate_ids, top_k, prompt.vision, prompt.pictures, prompt.route)


def _key(request: ScoreRequest) -> Key:
    ids = request.response_ids, request.candidate_ids
    asked = [None if i is None else hashlib.sha256(i.tobytes()).digest() for i in ids]
    # tasks of a step may differ in their pictures or their teacher alone
    return request.prompt_ids, request.route, id(request.pictures), *asked


def candidates_of(rollout: Rollout, k: int) -> Ids | None:
    """The student's k likeliest ids at every token, as a teacher is asked about; zeros where a tool wrote. None if k
    is 0.

    Raises:
        AlignmentError: the sampler gave none, or too few.
    """
    if k == 0:
        return None
    completion = rollout.completion
    rows = completion.candidate_ids
    if rows is None or rows.ndim != 2 or len(rows) != len(completion.ids) or rows.shape[-1] < k:
        raise AlignmentError(
            "the sampler gave no candidates for these tokens",
            where=f"task {rollout.task_id}",
            got=f"{'none' if rows is None else rows.shape} for {len(completion.ids)} tokens, {k} candidates wanted",
            fix="use a sampler that reports its likeliest tokens, such as the one in this process",
        )
    if completion.action_mask.all():
        return rows[:, :k]
    return np.where(completion.action_mask[:, None], rows[:, :k], np.int32(0))
