"""What the rollouts of a step looked like: a line of the log, and a file with every token's values."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING

from vold.engines.teachers.aligned import aligned_share
from vold.graders import outcome
from vold.objective import value_means
from vold.run.files import write_text
from vold.run.metrics import RolloutMetrics
from vold.run.records import to_json
from vold.run.rollouts import StoredRollout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.types import Rollout, Task


def describe(rollouts: Sequence[Rollout]) -> RolloutMetrics:
    """What a step's rollouts looked like: reward, outcomes, lengths, and how much the teacher was asked."""
    rollouts = [r for r in rollouts if r.source == "student"] or rollouts
    scores = [r.grade.score for r in rollouts]
    groups = _scores_by_group(rollouts)
    counts = Counter(outcome(r.grade, r.completion.finish) for r in rollouts)
    tokens = [len(r.completion.ids) for r in rollouts]
    shares = {f"share_{name}": counts[name] / len(rollouts) for name in ("wrong", "unparsed", "truncated", "timed_out")}
    scored = [r.teacher for r in rollouts if r.teacher is not None]
    return RolloutMetrics(
        reward=sum(scores) / len(scores),
        **shares,
        groups_all_pass=_share_of(groups, 1.0),
        groups_all_fail=_share_of(groups, 0.0),
        mean_tokens=sum(tokens) / len(tokens),
        rollout_tokens=sum(tokens),
        teacher_tokens=sum(len(s.logp) for s in scored),
        aligned_share=aligned_share(scored) if scored else None,
        **value_means(rollouts),
    )


def _scores_by_group(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Scores of each group of rollouts of one task."""
    scores: dict[int, list[float]] = {}
    for r in rollouts:
        scores.setdefault(r.group, []).append(r.grade.score)
    return list(scores.values())


def _share_of(groups: Sequence[Sequence[float]], score: float) -> float:
    """Share of the groups that have this score throughout."""
    return sum(all(s == score for s in group) for group in groups) / len(groups)


def store(file: Path, rollouts: Sequence[Rollout], tasks: Sequence[Task], policy: Policy) -> None:
    """Write every rollout of a step with all its token values, for `vold show` and the report. `tasks` are by group."""
    rows = [_row(r, tasks[r.group], policy) for r in rollouts]
    write_text(file, "".join(json.dumps(to_json(row)) + "\n" for row in rows))


def _row(r: Rollout, task: Task, policy: Policy) -> StoredRollout:
    ids = r.completion.ids.tolist()
    return StoredRollout(
        task_id=r.task_id,
        group=r.group,
        prompt=task.messages[-1].text,
        reference=task.reference,
        tokens=tuple(str(policy.chat.tokenizer.decode([i])) for i in ids),
        ids=tuple(ids),
        finish=r.completion.finish,
        score=r.grade.score,
        extracted=r.grade.extracted,
        note=r.grade.note,
        logp=tuple(_finite(v) for v in r.completion.logps.tolist()),
        teacher_logp=None if r.teacher is None else tuple(_logp(v) for v in r.teacher.logp.tolist()),
        advantage=() if r.advantage is None else tuple(r.advantage.tolist()),
        source=r.source,
        token_values={name: tuple(_finite(v) for v in values.tolist()) for name, values in r.token_values.items()},
        rollout_values={name: _finite(v) for name, v in r.rollout_values.items()},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _logp(value: float) -> float | None:
    """A log-prob as JSON can hold it: minus infinity as a very small one, None where there is none."""
    return None if math.isnan(value) else max(value, -1e9)
