"""What a run has come to, in sentences: how it stands, what training did, what each model gained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vold.report.text import decimal, number, p_value, percent, spaced
from vold.run.looks import best_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.evaluation import Difference, Evaluation
    from vold.report.readings import Readings
    from vold.report.text import Json
    from vold.run.looks import EvalRow

MOST = 4
"""Sets of which a sentence is said; the others are counted."""


def gains(e: Evaluation) -> list[str]:
    """What the last model gained over the first, a sentence a score, and how its wrong answers split."""
    models = list(e.models)
    if len(models) < 2:
        firsts = [(found.title, score) for found in e.sets.values() for score in found.scores[:1]]
        return [f"{r.label}: {percent(r.value)}% on {title}." for title, score in firsts for r in score.rows][:MOST]
    to_first = [d for d in e.differences if d.against == models[0]]
    last = next((m for m in reversed(models) if any(d.model == m for d in to_first)), "")
    found = [d for d in to_first if d.model == last]
    said = [_gain(d, e) for d in found[:MOST]]
    if len(found) > MOST:
        said.append(f"{len(found) - MOST} more scores are compared below.")
    split = ((e.sets[name].title, by[last]) for name, by in e.readings.items() if last in by)
    return said + [_split(title, last, r) for title, r in split if r.wrong]


def _gain(d: Difference, e: Evaluation) -> str:
    """A paired difference in a sentence."""
    value, low, high = (number(d.figures.get(k)) for k in ("difference", "low", "high"))
    rows = [r for score in e.sets[d.set].scores if score.name == d.score for r in score.rows] if d.set in e.sets else []
    levels = {r.label: r.value for r in rows}
    what = d.title if d.score == "accuracy" else f"{d.title}, {spaced(d.score)}"
    went = f"{percent(levels.get(d.against))} to {percent(levels.get(d.model))}"
    span = f"{percent(value, sign=True)} points, 95% interval {percent(low, sign=True)} to {percent(high, sign=True)}"
    p = number(d.figures.get("corrected_p"))
    span += "" if p is None else f", corrected p {p_value(p)}"
    verdict = {"better": "better", "worse": "worse"}.get(d.verdict, "not told apart")
    return f"{d.model} against {d.against} on {what}: {went} ({span}): {verdict}."


def _split(title: str, model: str, r: Readings) -> str:
    """How the wrong answers of a model split."""
    unsaid = f" ({decimal(r.unsaid, 0)} without a word on what was read)" if r.unsaid else ""
    parts = f"{decimal(r.misread, 0)} read the picture wrong, {decimal(r.misreasoned, 0)} read it right"
    missed = f"{decimal(r.wrong, 0)} answers of {model} on {title} that are not right"
    return f"Of the {missed} {parts} and reasoned wrong{unsaid}."


def trained(rows: Mapping[str, Sequence[Json]]) -> list[str]:
    """How far the reward (or the loss) has come; `rows` are metrics by stage."""
    for stage, key, noun in (("distill", "reward", "Reward"), ("sft", "loss", "Loss of the cold start")):
        line = [v for row in rows.get(stage, ()) if (v := number(row.get(key))) is not None]
        if line:
            size = max(1, min(20, len(line) // 4))
            first, last = (math.fsum(part) / len(part) for part in (line[:size], line[-size:]))
            when = (f"over the first {size} steps", f"over the last {size}") if size > 1 else ("at first", "at last")
            went = f"{noun} {decimal(first, 2)} {when[0]}, {decimal(last, 2)} {when[1]}"
            return [f"{went} of {decimal(len(line), 0)} steps."]
    return []


def watched(rows: Sequence[EvalRow]) -> list[str]:
    """What the last evaluation while a stage trained has come to, a sentence a set, with the best one before it."""
    last = [row for row in rows if row.step == rows[-1].step and row.low is not None and row.high is not None]
    return [
        f"{row.set} after {row.step} steps: {percent(row.accuracy)}% ({percent(row.difference, sign=True)} points "
        f"against step 0, 95% interval {percent(row.low, sign=True)} to {percent(row.high, sign=True)}); best after "
        f"{best_step(rows, row.set)} steps."
        for row in last[:MOST]
    ]


def left(stage: str, rows: Sequence[Json], steps: object) -> str:
    """About how long the steps that a stage has left will take, by those behind; empty where that is not known."""
    total = number(steps)
    recent = [_seconds(row) for row in rows[-20:]]
    if total is None or not recent or not sum(recent) or total <= len(rows):
        return ""
    minutes = (total - len(rows)) * sum(recent) / len(recent) / 60
    many, unit = (minutes, "minutes") if minutes < 120 else (minutes / 60, "hours")
    return f"about {decimal(many, 0)} {unit} of {stage} left"


def _seconds(row: Json) -> float:
    return math.fsum(number(value) or 0.0 for name, value in row.items() if name.startswith("seconds"))
