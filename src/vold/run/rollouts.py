"""A rollout as it is stored: a row of distill/rollouts/step-NNNNNN.jsonl, with a number for every token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vold.types import Finish


@dataclass(frozen=True, kw_only=True)
class StoredRollout:
    """One response of a stored step. Log-probs are in nats; None stands for a value that is not finite.

    `group` numbers the prompt within the step. `tokens` are the texts of `ids`; `logp`, `teacher_logp` (None: not
    asked) and `advantage` have one value for each. `score`, `extracted` and `note` are the grader's. `source` says who
    wrote it, student or teacher. `token_values` and `rollout_values` are what the advantage was made of, by name.
    """

    task_id: str
    group: int
    prompt: str
    reference: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    finish: Finish
    score: float
    extracted: str | None
    note: str
    logp: tuple[float | None, ...]
    teacher_logp: tuple[float | None, ...] | None
    advantage: tuple[float, ...]
    source: str
    token_values: Mapping[str, tuple[float | None, ...]]
    rollout_values: Mapping[str, float | None]


def stored_steps(run_dir: Path) -> dict[int, Path]:
    """Files of stored rollouts by step, in order."""
    files = (run_dir / "distill" / "rollouts").glob("step-*.jsonl")
    return dict(sorted((int(m.group(1)), f) for f in files if (m := re.fullmatch(r"step-(\d+)\.jsonl", f.name))))
