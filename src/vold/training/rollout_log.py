"""What the rollouts of a step looked like: a line of the log, and a file with every token's values."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vold.data.files.images import thumbnail
from vold.engines.teachers.aligned import aligned_share
from vold.graders import outcome
from vold.graders.outcome import mean_scores
from vold.objective import value_means
from vold.objective.unscored import unscored_of
from vold.run.metrics import RolloutMetrics
from vold.run.rollouts import RolloutTask, store_rollouts, store_tokenizer, text_view
from vold.types.arrays import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vold.model.policy import Policy
    from vold.types import Rollout, Task, Values

PICTURE = 256
"""Longest side, in pixels, of a picture that is stored beside rollouts."""


def describe(
    rollouts: Sequence[Rollout], dropped: Sequence[Rollout] = (), silent: int | None = None, staleness: int = 0
) -> RolloutMetrics:
    """What a step's rollouts looked like: reward, outcomes, lengths, and how much the teacher was asked. See
    `vold.training.rollout.Sampled` for those that were dropped and for silent groups, and `vold.training.turns` for
    staleness."""
    rollouts = [*(r for r in rollouts if r.source == "student"), *dropped] or rollouts
    scores = [r.grade.score for r in rollouts]
    groups = _scores_by_group(rollouts)
    counts = Counter(outcome(r.grade, r.completion.finish) for r in rollouts)
    tokens = [len(r.completion.ids) for r in rollouts]
    shares = {f"share_{name}": counts[name] / len(rollouts) for name in ("wrong", "unparsed", "truncated", "timed_out")}
    scored = [r.teacher for r in rollouts if r.teacher is not None]
    return RolloutMetrics(
        reward=sum(scores) / len(scores),
        scores=_single_scores(rollouts),
        **shares,
        groups_all_pass=_share_of(groups, 1.0),
        groups_all_fail=_share_of(groups, 0.0),
        groups_refilled=_refilled(dropped, silent),
        groups_silent=silent,
        staleness=staleness,
        mean_tokens=sum(tokens) / len(tokens),
        rollout_tokens=sum(tokens),
        teacher_tokens=sum(len(s.logp) for s in scored),
        aligned_share=aligned_share(scored) if scored else None,
        unscored_tokens=unscored_of(rollouts),
        **value_means(rollouts),
    )


def _single_scores(rollouts: Sequence[Rollout]) -> dict[str, float]:
    return mean_scores([r.grade.scores for r in rollouts])


def _refilled(dropped: Sequence[Rollout], silent: int | None) -> int | None:
    """How many groups others have replaced; None where nobody has looked."""
    return None if silent is None else len(_scores_by_group(dropped))


def _scores_by_group(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Scores of each group of rollouts of one task."""
    scores: dict[int, list[float]] = {}
    for r in rollouts:
        scores.setdefault(r.group, []).append(r.grade.score)
    return list(scores.values())


def _share_of(groups: Sequence[Sequence[float]], score: float) -> float:
    """Share of the groups that have this score throughout."""
    return sum(all(s == score for s in group) for group in groups) / len(groups)


def store(directory: Path, step: int, rollouts: Sequence[Rollout], tasks: Sequence[Task], policy: Policy) -> Path:
    """Write every rollout of a step with all its token values, for `vold show` and the report. `tasks` are by group."""
    store_tokenizer(directory, lambda: policy.chat.tokenizer.backend_tokenizer.to_str())
    return store_rollouts(directory, step, rollouts, questions_of(rollouts, tasks))


def with_entropy(rollouts: Sequence[Rollout], entropies: Mapping[int, Values]) -> list[Rollout]:
    """The rollouts with the student's entropy (nats) among their token values: NaN at tokens that an environment wrote.
    Those that were not trained on, whose place is not in `entropies`, are as they were."""
    out = list(rollouts)
    for place, read in entropies.items():
        mask = out[place].completion.action_mask
        values = np.full(len(mask), np.nan, "float32")
        values[mask] = read
        out[place] = replace(out[place], token_values={**out[place].token_values, "entropy": frozen(values, "float32")})
    return out


def questions_of(rollouts: Sequence[Rollout], tasks: Sequence[Task]) -> dict[int, RolloutTask]:
    """What each group of these rollouts answers. `tasks` are by group."""
    there = {r.group for r in rollouts}
    return {g: _question(t) for g, t in enumerate(tasks) if g in there}


def _question(task: Task) -> RolloutTask:
    images = tuple(thumbnail(i, PICTURE) for m in task.messages for i in m.images)
    return RolloutTask(task.messages[-1].text, task.reference, task.tags, images, text_view(task) or "", task.shows)
