"""`vold compare RUN...` as a page: curves over each other, what the recipes differ in, paired tests of the answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import clean
from vold.report.charts import Series, interval_strip, line_chart
from vold.report.evaluation import reads_as
from vold.report.run_page import DISTILL, SFT, asked_points, points, trailing_mean, window
from vold.report.standing import asked_of, metrics_of, one, standing
from vold.report.text import Json, spaced, words
from vold.report.write import write_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from markupsafe import Markup

    from vold.report.run_page import Curve
    from vold.run.comparison import ScoreDifference, SetComparison
    from vold.run.looks import EvalRow


def write_side_by_side(
    file: Path, runs: Mapping[str, Path], tests: Mapping[str, Sequence[SetComparison] | str]
) -> Path:
    """Write the page of several runs. Returns the file.

    Args:
        file: the page.
        runs: directories by name, the one that others are compared with first. What all have in common of their names
            is not shown.
        tests: by the name of every other run the first minus it on each set, or why there is none.
    """
    names = _names(runs)
    runs, tests = {names[n]: run for n, run in runs.items()}, {names[n]: found for n, found in tests.items()}
    first, *others = runs
    metrics = {name: metrics_of(run) for name, run in runs.items()}
    evals = {name: asked_of(run) for name, run in runs.items()}
    recipes = {name: dict(_leaves(one(run / "recipe.yaml"))) for name, run in runs.items()}
    content = {
        "name": " and ".join([first, *others] if len(others) == 1 else [f"{first}", f"{len(others)} more runs"]),
        "runs": {name: standing(run, metrics[name], evals[name]) for name, run in runs.items()},
        "charts": {
            title: [
                *_asked({name: of[stage] for name, of in evals.items()}),
                *_charts(curves, {name: of[stage] for name, of in metrics.items()}),
            ]
            for title, stage, curves in (("Distillation", "distill", DISTILL), ("Cold start", "sft", SFT))
        },
        "differ": _differing(recipes),
        "tests": {name: t if isinstance(t, str) else _rows(t) for name, t in tests.items()},
        "first": first,
    }
    return write_page(file, "side_by_side.html.j2", content)


def _names(runs: Mapping[str, Path]) -> dict[str, str]:
    """The names without the folder that all runs lie in."""
    home = Path(os.path.commonpath([run.absolute().parent for run in runs.values()]))
    return {name: run.absolute().relative_to(home).as_posix() for name, run in runs.items()}


def _asked(evals: Mapping[str, Sequence[EvalRow]]) -> Iterator[Markup]:
    """Accuracy while a stage trained, a chart a set, a line a run."""
    found = {name: asked_points(rows) for name, rows in evals.items()}
    for one_set in dict.fromkeys(name for lines in found.values() for name in lines):
        lines = {name: of.get(one_set, ()) for name, of in found.items()}
        series = [Series(name, line, i) for i, (name, line) in enumerate(lines.items(), 1)]
        title = f"Accuracy while it trains: {one_set}"
        if chart := line_chart(title, "right answers", series, span=(0, 1), shares=True):
            yield chart


def _charts(curves: Sequence[Curve], rows: Mapping[str, Sequence[Json]]) -> Iterator[Markup]:
    """Every metric of the curves, a line a run, smoothed as on the page of a run."""
    for curve in curves:
        for metric, label in curve.metrics.items():
            series = []
            for place, (name, found) in enumerate(rows.items(), 1):
                line = points(found, metric, curve.where)
                series.append(Series(name, trailing_mean(line, window(len(line))), place))
            if curve.rare and not any(y for s in series for _, y in s.points):
                continue
            title = f"{curve.title}: {label}" if label else curve.title
            if chart := line_chart(title, curve.unit, series, span=curve.span, shares=curve.shares):
                yield chart


def _leaves(value: object, at: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a recipe with their values in words."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{at}.{key}" if at else str(key))
    else:
        yield clean(at), words(value)


def _differing(recipes: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Keys whose values are not the same in all recipes, with the value in each; empty where one lacks it."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    rows = [(key, [recipe.get(key, "") for recipe in recipes.values()]) for key in keys]
    return [(key, values) for key, values in rows if len({*values}) > 1]


def _rows(found: Sequence[SetComparison]) -> list[dict[str, object]]:
    """A row a score that is read first."""
    heads = [(c, s, c if s == "accuracy" else c.derived[s]) for c in found for s in c.headline]
    reach = max((abs(v) for _, _, d in heads for v in (d.difference, d.low, d.high)), default=0.0)
    return [_row(c, score, d, reach) for c, score, d in heads]


def _row(c: SetComparison, score: str, d: SetComparison | ScoreDifference, reach: float) -> dict[str, object]:
    a, b = (c.accuracy_a, c.accuracy_b) if score == "accuracy" else (c.derived[score].a, c.derived[score].b)
    verdict = reads_as(d.low, d.high, d.corrected_p)
    strip = interval_strip(d.difference, d.low, d.high, reach=reach)
    notes = [*(f"of another test: {w}" for w in c.differs), *(f"protocols differ: {w}" for w in c.forced)]
    return {"set": c.name, "score": spaced(score), "a": a, "b": b, "d": d, "n": c.n, "verdict": verdict, "strip": strip,
            "notes": notes}  # fmt: skip
