"""What a stage knows of its model while it trains: evaluations between two steps (STAGE/evals.jsonl)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.run.files import read_records
from vold.run.model_sections import Sampling
from vold.run.records import Count, Share

if TYPE_CHECKING:
    from pathlib import Path

    from vold.run.recipe import Recipe
    from vold.run.stage_sections import WhileTraining

EVALS = "evals.jsonl"
"""Its rows, of a training stage."""
ANSWERS = "evals"
"""Beside it: the answers, a folder a step."""
SIDE_BY_SIDE, LONGEST = 128, 2048
"""Answers at a time, and tokens of one, where a recipe says neither for evaluation nor for training."""
MODELS = "models"
"""Beside it: models that are kept, `best` and those of some steps."""


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """One set, asked of the weights between two steps. No time stands in it: equal seeds give equal bytes."""

    step: Count
    """Steps behind the weights, 0 before the first. Unit: count. Made by training/looks.py:Looks."""
    set: str
    """The task set or benchmark. Unit: name. Made by training/looks.py:Looks."""
    pictures: bool
    """Whether its questions have any. Unit: true or false. Made by training/looks.py:Looks."""
    n: Count
    """Questions. Unit: count. Made by training/looks.py:Looks."""
    accuracy: Share
    """Share of right answers. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    stderr: float
    """Its standard error. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    truncated: Share
    """Share of answers that came to no end. Unit: 0 to 1. Made by training/looks.py:Looks."""
    tokens: float
    """Mean length of an answer. Unit: tokens. Made by evals/metrics.py:summarise."""
    difference: float | None = None
    """Accuracy less that of step 0 on the same questions; absent at step 0. Unit: -1 to 1. Made by
    evals/compare.py:compare_answers."""
    low: float | None = None
    """Lower end of its 95% interval, of paired answers. Unit: -1 to 1. Made by evals/compare.py:compare_answers."""
    high: float | None = None
    """Upper end. Unit: -1 to 1. Made by evals/compare.py:compare_answers."""


def read_evals(directory: Path) -> Sequence[EvalRow]:
    """The evaluations of a stage so far; none where there were none.

    Raises:
        CheckpointError: the file is damaged, or of another version of vold.
    """
    return read_records(directory / EVALS, EvalRow, whole=True)


def best_step(rows: Iterable[EvalRow], name: str) -> int | None:
    """The step with the highest accuracy on a set, the first of equal ones; None where it was never asked."""
    found = [row for row in rows if row.set == name]
    return max(found, key=lambda row: (row.accuracy, -row.step)).step if found else None


def none_better(rows: Sequence[EvalRow], name: str) -> int:
    """How many of the last evaluations on a set were no better than one before."""
    best = best_step(rows, name) or 0
    return sum(row.step > best for row in rows if row.set == name)


def asked_while_training(recipe: Recipe, section: WhileTraining) -> tuple[Sampling, int]:
    """How the student is sampled meanwhile, and how many answers side by side: as in `eval`, where there is one and the
    section does not say otherwise; else greedily, and as long as in training."""
    side_by_side = SIDE_BY_SIDE if recipe.eval is None else recipe.eval.batch_size
    if section.sampling is not None:
        return section.sampling, side_by_side
    if recipe.eval is not None:
        return recipe.eval.sampling, side_by_side
    longest = recipe.distill.sampling.max_new_tokens if recipe.distill is not None else 0
    if recipe.traces is not None:
        longest = longest or recipe.traces.max_tokens
    return Sampling(max_new_tokens=longest or LONGEST, temperature=0), side_by_side
