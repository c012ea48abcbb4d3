"""How far student and teacher are apart on the steps of rollouts with tools: figures for a study.

Each function reads the first rollouts that a run of `vold distill` has stored, before any update, and returns None
where the teacher was not asked. The gap of a step is SOD's d_k, in nats: the mean of |log π_old - log π_T| over its
tokens.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from vold.data.worlds import calls
from vold.data.worlds.call_tokens import IMAGE, SPECIAL, VIDEO
from vold.objective.advantages import action_runs
from vold.run.rollouts import load_rollouts, rollout_files

if TYPE_CHECKING:
    from pathlib import Path

END, ASSISTANT = SPECIAL.index("<|im_end|>"), SPECIAL.index("<|assistant|>")
TOOL = len(SPECIAL) + len((IMAGE, VIDEO)) + calls.WORDS.index("<|tool|>")

Gaps = list[tuple[float, bool]]
"""Of one rollout: the gap of every step, and whether the step follows a failed call."""


def own_tokens(ids: list[int]) -> list[int]:
    """The action mask of a response, read off its ids: the tool speaks from its role word to the model's.

    Example:
        >>> own_tokens([50, END, TOOL, 60, ASSISTANT, 51, END])
        [1, 1, 0, 0, 0, 1, 1]
    """
    mask, own = [], True
    for t, i in enumerate(ids):
        if i == TOOL and t and ids[t - 1] == END:
            own = False
        mask.append(int(own))
        own = own or i == ASSISTANT
    return mask


def gaps(row: dict[str, Any]) -> Gaps:
    """The steps of a stored rollout."""
    runs = action_runs(own_tokens(row["ids"]))
    out = []
    for k, run in enumerate(runs):
        known = [abs(row["logp"][t] - row["teacher_logp"][t]) for t in run if row["teacher_logp"][t] is not None]
        said = row["ids"][runs[k - 1].stop : run.start] if k else []
        out.append((statistics.fmean(known) if known else 0.0, calls.FAILED in said))
    return out


def drifted(directory: Path) -> dict[str, Any] | None:
    """Share of rollouts with a failed call whose next step has a larger gap than their first step."""
    found = [
        next(gap for gap, failed in steps if failed) > steps[0][0]
        for steps in _stored(directory)
        if any(failed for _, failed in steps)
    ]
    return {"accuracy": sum(found) / len(found), "n": len(found)} if found else None


def cascaded(directory: Path) -> dict[str, Any] | None:
    """Of the steps after a failed call, all that come after another such step too: the share of failures that follow on
    a failure. None without failures."""
    after = [[failed for _, failed in steps] for steps in _stored(directory)]
    again = [one for flags in after for one in _again(flags)]
    return {"accuracy": sum(again) / len(again), "n": len(again)} if again else None


def _again(flags: list[bool]) -> list[bool]:
    """For every failed call whether the call before it failed as well."""
    return [k > 0 and flags[k - 1] for k, failed in enumerate(flags) if failed]


def first_gap(directory: Path) -> dict[str, Any] | None:
    """Mean gap of first steps."""
    return _mean([steps[0][0] for steps in _stored(directory)])


def gap_after_success(directory: Path) -> dict[str, Any] | None:
    """Mean gap of steps that follow a call that did not fail."""
    return _mean([gap for steps in _stored(directory) for gap, failed in steps[1:] if not failed])


def gap_after_failure(directory: Path) -> dict[str, Any] | None:
    """Mean gap of steps that follow a failed call."""
    return _mean([gap for steps in _stored(directory) for gap, failed in steps if failed])


def _stored(directory: Path) -> list[Gaps]:
    file = rollout_files(directory / "rollouts").get(0)
    found = [] if file is None else [s for s in load_rollouts(file) if s.rollout.teacher is not None]
    return [gaps(s.row()) for s in found]


def _mean(values: list[float]) -> dict[str, Any] | None:
    return {"value": statistics.fmean(values), "n": len(values)} if values else None
