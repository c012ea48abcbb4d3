"""What a run directory holds, made ready to be shown, and the page that shows it.

Nothing here may fail on a run that is half done, was killed or written by an older version: what is not there is left
out. A directory that holds no run at all is an error, and so is a damaged file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import CheckpointError, ConfigError, DataError
from vold.report.charts import Point, Series, line_chart
from vold.report.evaluation import evaluation
from vold.report.rollouts import GAP_LIMIT, ROLLOUTS, pick_rollouts
from vold.report.text import MINUS, Json, at, decimal, number, part, percent, words
from vold.report.write import write_page
from vold.run.files import MEND, bad_row, lists_in, read_bytes, read_json, read_jsonl
from vold.run.metrics import MEND_METRICS, METRICS, refuse_gaps
from vold.run.rollouts import stored_steps
from vold.run.yaml_text import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

STAGES = ("traces", "sft", "align", "distill", "eval")
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
    ("truncated", "rollouts cut at their budget, %", percent),
    ("tokens", "tokens", lambda value: decimal(value, 0)),
    ("aligned_share", "of these, aligned with the teacher's, %", percent),
)
"""Key, label and form of every figure of `vold align`."""


@dataclass(frozen=True)
class StageState:
    """A stage of a run: its state (`done`, `begun`, `not run`), what is known of it, and where it lies."""

    name: str
    state: str
    detail: str
    where: str


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
    return write_page(run_dir / "report.html", "run_page.html.j2", content(run_dir))


def check_run(run_dir: Path) -> None:
    """Refuse a directory that no stage has written to.

    Raises:
        DataError: it does not exist, or holds neither a recipe nor a stage.
    """
    if not run_dir.is_dir() or not any((run_dir / name).exists() for name in ("recipe.yaml", *STAGES)):
        raise DataError(
            "there is no run here",
            where=str(run_dir),
            got="no such directory" if not run_dir.is_dir() else "neither a recipe.yaml nor a stage",
            fix="give a run directory (run.dir of a recipe that was started), or the recipe itself",
        )


def content(run_dir: Path) -> Json:
    """Everything the template shows."""
    steps = stored_steps(run_dir)
    return {
        "name": run_dir.resolve().name,
        "about": about(run_dir),
        "evaluation": evaluation(one(run_dir / "eval" / "results.json"), answers_of(run_dir), QUESTIONS),
        "alignments": alignments(run_dir),
        "overlap": ALIGNMENT,
        "stages": stages_of(run_dir),
        "traces": one(run_dir / "traces" / "summary.json"),
        "sft_charts": training_charts(SFT, rows(run_dir / "sft" / METRICS)),
        "distill_charts": training_charts(DISTILL, rows(run_dir / "distill" / METRICS)),
        "steps": {s: pick_rollouts(steps[s], ROLLOUTS) for s in sorted({*list(steps)[:1], *list(steps)[-1:]})},
        "gap_limit": GAP_LIMIT,
    }


def rows(file: Path) -> list[Json]:
    """The whole rows of a list; none if it is absent. Raises CheckpointError: one is damaged."""
    mend = MEND_METRICS if file.name == METRICS else MEND
    found = read_jsonl(file, whole=True, mend=mend)
    if file.name == METRICS:
        refuse_gaps((row.get("step") for row in found), file, mend)
    elif strange := [n for n, row in enumerate(found, 1) if "id" not in row and "key" not in row]:
        raise bad_row(file, strange[0], "neither an answer nor a judge's reply")
    return [*found]


def one(file: Path) -> Json:
    """The object in a JSON or YAML file; an empty one if it is absent. Raises CheckpointError: it is damaged."""
    if file.suffix == ".json":
        return read_json(file, dict, absent={})
    try:
        return {} if read_bytes(file) is None else read_yaml(file, "recipe")
    except ConfigError as error:
        fix = "put it back from a copy, or repeat the last verb: each writes it"
        raise CheckpointError(error.what, where=error.where, got=error.got, fix=fix) from None


def answers_of(run_dir: Path) -> dict[str, dict[str, list[Json]]]:
    """Stored answers by model and set; base, sft and vold come first."""
    first = ("base", "sft", "vold")
    folders = [f for f in sorted((run_dir / "eval").glob("*")) if f.is_dir() and not f.name.startswith(".")]
    folders.sort(key=lambda f: first.index(f.name) if f.name in first else len(first))
    return {f.name: {file.stem: rows(file) for file in lists_in(f)} for f in folders}


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


def stages_of(run_dir: Path) -> list[StageState]:
    """Each stage and how far it is."""
    files = ("recipe.yaml", "traces/summary.json", "align/align.json", "eval/results.json")
    recipe, traces, align, results = (one(run_dir / file) for file in files)
    kept, answers, correct = (words(traces.get(key)) for key in ("kept", "answers", "correct"))
    details = {
        "traces": traces and f"{kept} of {answers} answers kept, {correct} correct",
        "sft": _steps(run_dir, recipe, "sft", "loss"),
        "align": align and f"{words(align.get('verdict'))}: {decimal(align.get('kl'))} nats per token",
        "distill": _steps(run_dir, recipe, "distill", "reward"),
        "eval": results and ", ".join(part(results, "stages")),
    }
    out = []
    for stage, detail in details.items():
        done = (run_dir / stage / "final").is_dir() if stage in ("sft", "distill") else bool(detail)
        state = "done" if done else "begun" if (run_dir / stage).is_dir() else "not run"
        out.append(StageState(stage, state, str(detail or ""), f"{stage}/" if state != "not run" else ""))
    return out


def _steps(run_dir: Path, recipe: Json, stage: str, key: str) -> str:
    found, of = rows(run_dir / stage / METRICS), at(recipe, stage, "steps") or "?"
    return f"{len(found)} of {of} steps, last {key} {decimal(found[-1].get(key))}" if found else ""


def alignments(run_dir: Path) -> dict[str, Json]:
    """What `vold align` found before and after the cold start, if it was run then, else what it found last."""
    timed = {f"{when} the cold start": one(run_dir / "align" / f"{when}-sft.json") for when in ("before", "after")}
    found = {when: f for when, f in timed.items() if f} or {"": one(run_dir / "align" / "align.json")}
    return {when: f for when, f in found.items() if f}


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
