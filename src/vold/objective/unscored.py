"""Tokens that a teacher was asked about and has no finite log-prob for. None of them may vanish without a word.

A token that a teacher with another tokenizer has no token for is another matter: it is not `aligned`, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vold.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vold.types import Flags, Rollout


def asked(rollout: Rollout) -> Flags:
    """[response] Which of the model's own tokens the teacher has a token for; all of them where it does not say."""
    own, scores = rollout.completion.action_mask, rollout.teacher
    return own if scores is None or scores.aligned is None else own & scores.aligned


def unscored(rollout: Rollout) -> int:
    """How many of the model's own tokens the teacher was asked about, has a token for, and gave no finite log-prob.

    Example:
        >>> from vold.types import Completion, Grade, Rollout, TokenScores
        >>> c = Completion((5, 2), (-0.1, -0.2), (1, 1), "stop")
        >>> unscored(Rollout("sum-1", 0, (1,), c, Grade(0.0, "7", "wrong"), TokenScores((-0.5, float("nan")))))
        1
    """
    return int(np.count_nonzero(asked(rollout) & ~np.isfinite(rollout.teacher.logp))) if rollout.teacher else 0


def unscored_of(rollouts: Sequence[Rollout]) -> int | None:
    """Those of several rollouts together; None where the teacher was asked about none of them."""
    return sum(map(unscored, rollouts)) if any(r.teacher is not None for r in rollouts) else None


def refuse_impossible(
    rollout: Rollout, place: int, weighed: Flags, texts: Callable[[Sequence[int]], list[str]] | None
) -> None:
    """Refuse a token that the teacher holds for impossible where a loss compares log-probs: the loss would be infinite.

    Args:
        rollout: scored by the teacher.
        place: its number within the step.
        weighed: [response] the tokens that have a weight in the loss.
        texts: ids to the text each adds.

    Raises:
        TeacherError: naming the token.
    """
    assert rollout.teacher is not None
    found = np.flatnonzero(weighed & np.isinf(rollout.teacher.logp))
    if not len(found):
        return
    t = int(found[0])
    ids = rollout.completion.ids.tolist()
    piece = f" {texts(ids)[t]!r}" if texts is not None else ""
    raise TeacherError(
        "the teacher holds a token that the student has written for impossible, so that their divergence is infinite",
        where=f"task {rollout.task_id}, rollout {place} of the step (group {rollout.group}), token {t} of {len(ids)}",
        got=f"log-prob {rollout.teacher.logp[t]} for id {ids[t]}{piece}"
        + (f", and {len(found) - 1} more tokens of this rollout" if len(found) > 1 else ""),
        fix="use a teacher that can emit this id (one with a token of that name, and a server that bans none), or an "
        "objective that gives such tokens no reward: one with the teacher as advantage, `method: opd` or `kdrl` with "
        "`reading: reward`",
    )
