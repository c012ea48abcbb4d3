"""What a run directory holds, made ready to be shown, and the page that shows it.

Nothing here may fail on a run that is half done, was killed or written by an older version: what is not there is left
out. A directory that holds no run at all is an error, and so is a damaged file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import clean
from vold.report.browser import saved
from vold.report.charts import Point, Series, line_chart
from vold.report.evaluation import evaluation
from vold.report.headline import gains
from vold.report.rollouts import GAP_LIMIT
from vold.report.standing import asked_of, check_run, metrics_of, one, rows, standing
from vold.report.text import MINUS, Json, at, decimal, number, percent, words
from vold.report.write import write_page
from vold.run.answers import model_folders
from vold.run.files import lists_in, read_bytes
from vold.run.metrics import SCORE
from vold.run.rollouts import stored_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from vold.run.looks import EvalRow

RESULTS = "eval/results.html"
"""The page of a run's evaluation, from that of the run."""
COMPARED = "compare.html"
"""The page that sets a run beside others, in the first of them."""
QUESTIONS = 24
"""Evaluated questions shown of each set."""
ALIGNMENT: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("kl", "KL(student ‖ teacher), nats per token", decimal),
    ("kl_failed", "the same on failed rollouts", decimal),
    ("top1_agreement", "top-1 agreement, %", percent),
    ("teacher_mass", "teacher's probability of the student's tokens, %", percent),
    ("student_entropy", "student's entropy, nats", decimal),
    ("teacher_entropy", "teacher's entropy, nats", decimal),
    ("pass_rate", "rollouts that pass, %", percent),
    ("failed_groups", "prompts of which no rollout passes, %", percent),
    ("truncated", "rollouts cut at their budget, %", percent),
    ("tokens", "tokens", lambda value: decimal(value, 0)),
    ("aligned_share", "of these, aligned with the teacher's, %", percent),
)
"""Key, label and form of every figure of `vold align`."""


@dataclass(frozen=True)
class Curve:
    """A chart of metrics, each with its label. One metric is drawn each step and smoothed, several are smoothed alone.

    A row is drawn where its key `where` is there and not 0. Of `rare` lines those that are 0 throughout are left out.
    """

    title: str
    unit: str
    metrics: Mapping[str, str]
    where: str = ""
    span: tuple[float, float] | None = None
    shares: bool = False
    rare: bool = False


FAILED = {f"share_{o}": o.replace("_", " ") for o in ("wrong", "unparsed", "truncated", "timed_out")}
GROUPS = {"groups_all_pass": "all pass", "groups_all_fail": "all fail"}
TOKENS = {"rollout_tokens": "in rollouts", "teacher_tokens": "read by the teacher"}
SECONDS = {"seconds_sample": "sample", "seconds_teacher": "teacher", "seconds_update": "update"}
SFT = (Curve("Loss", "nats per token", {"loss": ""}), Curve("Gradient norm", "before clipping", {"grad_norm": ""}))
DISTILL = (
    Curve("Reward", "mean score of a step's rollouts", {"reward": ""}, span=(0, 1)),
    Curve("Teacher gap", f"student {MINUS} teacher, nats per scored token", {"teacher_gap": ""}, "teacher_tokens"),
    Curve("Entropy", "student, nats per token", {"entropy": ""}, "trained_tokens"),
    Curve("Gradient norm", "before clipping", {"grad_norm": ""}, "trained_tokens"),
    Curve("Groups of one outcome", "share of prompts", GROUPS, span=(0, 1), shares=True),
    Curve("Tokens", "per step", TOKENS),
    Curve("Rollouts that fail", "share of rollouts", FAILED, shares=True, rare=True),
    Curve("Response length", "mean tokens", {"mean_tokens": ""}),
    Curve("Time", "seconds per step", SECONDS),
)


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run directory, from whatever the run has made so far. Returns the file.

    Raises:
        DataError: the directory holds no run.
    """
    run_dir = Path(run_dir)
    check_run(run_dir)
    more = {"rollouts": saved(stored_steps(run_dir)), "server": False}
    return write_page(run_dir / "report.html", "run_page.html.j2", content(run_dir) | more)


def content(run_dir: Path) -> dict[str, object]:
    """Everything the template shows but the rollouts."""
    found = evaluation(one(run_dir / "eval" / "results.json"), answers_of(run_dir), QUESTIONS)
    recipe = read_bytes(run_dir / "recipe.yaml")
    return moving(run_dir) | {
        "evaluation": found,
        "gains": gains(found),
        "alignments": alignments(run_dir),
        "overlap": ALIGNMENT,
        "recipe": "" if recipe is None else clean(recipe.decode(errors="replace")),
        "results": RESULTS if (run_dir / RESULTS).is_file() else "",
        "compared": COMPARED if (run_dir / COMPARED).is_file() else "",
        "gap_limit": GAP_LIMIT,
    }


def moving(run_dir: Path) -> dict[str, object]:
    """What changes while a stage trains: how the run stands and its curves."""
    metrics, evals = metrics_of(run_dir), asked_of(run_dir)
    now = standing(run_dir, metrics, evals)
    return {
        "name": run_dir.resolve().name,
        "about": about(run_dir),
        "now": now,
        "coming": now.coming,
        "traces": one(run_dir / "traces" / "summary.json"),
        "solutions": at(one(run_dir / "recipe.yaml"), "traces", "answers") == "data",
        "sft_charts": [*asked_charts(evals["sft"]), *training_charts(SFT, metrics["sft"])],
        "distill_charts": [
            *asked_charts(evals["distill"]),
            *training_charts([*DISTILL, *score_curves(metrics["distill"])], metrics["distill"]),
        ],
    }


def answers_of(run_dir: Path) -> dict[str, dict[str, list[Json]]]:
    """Stored answers by model and set; base, sft and vold come first."""
    first, folders = ("base", "sft", "vold"), model_folders(run_dir)
    names = sorted(folders, key=lambda name: first.index(name) if name in first else len(first))
    return {name: {file.stem: rows(file) for file in lists_in(folders[name])} for name in names}


def about(run_dir: Path) -> dict[str, str]:
    """What the run is, for the head of the page and the terminal."""
    recipe, versions = one(run_dir / "recipe.yaml"), one(run_dir / "versions.json")
    pairs = {
        "student": at(recipe, "student", "path"),
        "teacher": at(recipe, "teacher", "path"),
        "objective": at(recipe, "distill", "objective", "method"),
        "seed": at(recipe, "run", "seed"),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    return {k: words(v) for k, v in pairs.items() if v not in (None, "")}


def alignments(run_dir: Path) -> dict[str, Json]:
    """What `vold align` found before and after the cold start, if it was run then, else what it found last."""
    timed = {f"{when} the cold start": one(run_dir / "align" / f"{when}-sft.json") for when in ("before", "after")}
    found = {when: f for when, f in timed.items() if f} or {"": one(run_dir / "align" / "align.json")}
    return {when: f for when, f in found.items() if f}


def asked_charts(rows: Sequence[EvalRow]) -> list[Markup]:
    """The curve of evaluations between the steps of a stage, a line a set; none where there were none."""
    lines = asked_points(rows)
    series = [Series(name, line, i) for i, (name, line) in enumerate(lines.items(), 1)]
    chart = line_chart("Accuracy while it trains", "right answers", series, span=(0, 1), shares=True)
    return [] if chart is None else [chart]


def score_curves(rows: Sequence[Json]) -> list[Curve]:
    """A chart of the single scores that the reward is made of, where it is made of some."""
    names = sorted({key for row in rows for key in row if key.startswith(SCORE)})
    labels = {key: key.removeprefix(SCORE) if len(names) > 1 else "" for key in names}
    title = "Scores" if len(names) > 1 else "".join(names).replace(SCORE, "Score ")
    return [Curve(title, "mean of a step's rollouts", labels, span=(0, 1))] if names else []


def asked_points(rows: Sequence[EvalRow]) -> dict[str, list[Point]]:
    """Accuracy by step on each set that a stage was evaluated on while it trained."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        lines.setdefault(row.set, []).append((row.step, row.accuracy))
    return lines


def training_charts(curves: Sequence[Curve], rows: Sequence[Json]) -> list[Markup]:
    """Charts of a stage's metric rows, as far as these have values."""
    return [chart for curve in curves if (chart := _chart(curve, rows))]


def _chart(curve: Curve, rows: Sequence[Json]) -> Markup | None:
    lines = {label: points(rows, metric, curve.where) for metric, label in curve.metrics.items()}
    size = window(max(map(len, lines.values())))
    smooth = {label: trailing_mean(line, size) for label, line in lines.items()}
    series = [Series(label, line, i) for i, (label, line) in enumerate(smooth.items(), 1)]
    series = [s for s in series if not curve.rare or any(y for _, y in s.points)]
    unit = curve.unit
    if size > 1 and len(lines) == 1:
        each, mean = lines[""], smooth[""]
        series = [Series("each step", each, faint=True), Series(f"mean of the last {size}", mean)]
    elif size > 1:
        unit += f", mean of the last {size}"
    return line_chart(curve.title, unit, series, span=curve.span, shares=curve.shares)


def points(rows: Sequence[Json], key: str, where: str = "") -> list[Point]:
    """The finite values of one key of metric rows, by step, over the rows where another key is not 0."""
    pairs = [(number(r.get("step")), number(r.get(key))) for r in rows if not where or r.get(where)]
    return sorted((a, b) for a, b in pairs if a is not None and b is not None)


def window(count: int) -> int:
    """Steps a smoothed line averages over: a twentieth of the run, at least 5 if there are 20."""
    return max(5, count // 20) if count >= 20 else 1


def trailing_mean(line: Sequence[Point], window: int) -> list[Point]:
    """Each point's mean with up to `window - 1` points before it.

    Example:
        >>> trailing_mean([(0, 1.0), (1, 3.0), (2, 5.0)], 2)
        [(0, 1.0), (1, 2.0), (2, 4.0)]
    """
    return [
        (x, math.fsum(y for _, y in line[max(0, i - window + 1) : i + 1]) / min(i + 1, window))
        for i, (x, _) in enumerate(line)
    ]
