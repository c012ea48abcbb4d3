"""`vold run`: all stages of a recipe. `vold demo`: those of VOLD on the demo world, and what they show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.text import Text

from vold.engines.launch.serving import keeping
from vold.evals.engine_check import self_check
from vold.evals.evaluate import evaluate
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.report import write_report
from vold.report.tables import print_alignment, print_balance, print_results, print_self_check
from vold.report.text import percent
from vold.run.comparison import Comparison
from vold.run.console import console, print_next
from vold.run.files import write_json
from vold.run.lock import owning
from vold.run.readiness import align_doubt
from vold.run.recipe import load_recipe
from vold.run.results import Breakdown
from vold.training.balance import balance
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.run.recipe import Recipe
    from vold.run.results import Results

RECIPE = Path(__file__).parent / "demo.yaml"


@dataclass(frozen=True)
class DemoSummary:
    """summary.json. `wall_seconds` are of the last call; a part is one model on one task set."""

    wall_seconds: float
    stages: Mapping[str, Mapping[str, Breakdown]]
    comparisons: tuple[Comparison, ...]


def run_stages(recipe: Recipe) -> None:
    """Run every stage that a recipe has, in order, and write the report. A stopped run goes on where it was.

    Raises:
        VoldError: as the stages.
    """
    began = time.monotonic()
    with owning(recipe.run.dir, "run"), keeping():
        for stage in ("check", *recipe.stages):
            _enter(stage, began)
            _WORK[stage][1](recipe)
        page = write_report(recipe.run.dir)
    console.print(f"\nwrote {page}  ({time.monotonic() - began:.0f} s)")
    print_next("show", str(recipe.run.dir))


def demo(overrides: list[str]) -> DemoSummary:
    """Run check, traces, align, sft, align, distill and eval; write summary.json and report.html.

    A stopped demo goes on where it was. `wall_seconds` counts this call only.
    """
    recipe = load_recipe(RECIPE, overrides)
    with owning(recipe.run.dir, "demo"):
        return _demo(recipe)


def _demo(recipe: Recipe) -> DemoSummary:
    began = time.monotonic()
    torch.set_num_threads(recipe.run.threads)
    before = ["align"] if not (recipe.run.dir / "sft" / "final").is_dir() else []
    for stage in ("check", "traces", *before, "sft", "align", "distill"):
        _enter(stage, began)
        _WORK[stage][1](recipe)
    _enter("eval", began)
    results = _evaluate(recipe)
    summary = DemoSummary(
        wall_seconds=round(time.monotonic() - began, 1),
        stages={
            model: {name: Breakdown(s.accuracy, s.stderr, s.n) for name, s in sets.items()}
            for model, sets in results.stages.items()
        },
        comparisons=results.comparisons,
    )
    write_json(recipe.run.dir / "summary.json", summary)
    page = write_report(recipe.run.dir)
    for number, sentence in enumerate(story(results, align_doubt(recipe)), 1):
        console.print(f"{number}. {sentence}")
    console.print(f"\nwrote {recipe.run.dir / 'summary.json'} and {page}  ({summary.wall_seconds:.0f} s)")
    print_next("show", str(recipe.run.dir))
    return summary


def _enter(stage: str, began: float) -> None:
    console.print(Text.assemble("\n", (f"{stage}: {_WORK[stage][0]}", "bold"), f"  ({time.monotonic() - began:.0f} s)"))


def compare_models(recipe: Recipe) -> None:
    """`vold align`: compare student and teacher, or with `align.self_check` an engine with itself, and print what is
    found."""
    if recipe.align is not None and recipe.align.self_check:
        print_self_check(self_check(recipe))
    else:
        print_alignment(align(recipe))


def _evaluate(recipe: Recipe) -> Results:
    results = evaluate(recipe)
    print_results(results, recipe.run.dir / "eval")
    return results


_WORK: dict[str, tuple[str, Callable[[Recipe], object]]] = {
    "check": ("can this recipe run?", check),
    "traces": ("the teacher answers text prompts", make_traces),
    "sft": ("the student learns the teacher's style, on text alone", sft),
    "align": ("do student and teacher overlap enough for stage 2?", compare_models),
    "balance": ("how often does the student solve each problem?", lambda recipe: print_balance(balance(recipe)[1])),
    "distill": ("GRPO, and the teacher's opinion on failed rollouts, on text alone", distill),
    "eval": ("problems never trained on", _evaluate),
}
"""What each stage is about, and what does it."""


def story(results: Results, doubt: str | None) -> list[str]:
    """What the demo's figures say, in three sentences. `doubt` is what speaks against its stage 2."""
    paired = {(c.set, c.model, c.against): c for c in results.comparisons}
    text, image = (_went(results, name) for name in ("text", "image"))
    style = _told(paired.get(("image", "sft", "base")), "the base")
    gained = _told(paired.get(("image", "vold", "base")), "the base")
    stage_2 = _told(paired.get(("text", "vold", "sft")), "the cold start")
    start = f"Text, which every stage learns from: {text}; stage 2 {stage_2}."
    carried = f"Images, which no stage has seen: {image}; what stage 2 learnt in text {gained} on images."
    ready = "found ready for stage 2" if doubt is None else "not found ready for stage 2, so this is no good example"
    learnt = f"The cold start, which teaches the teacher's style on text alone, {style} on images; it was {ready}."
    return [start, carried, learnt]


def _went(results: Results, name: str) -> str:
    names = {"base": "base", "sft": "after the cold start", "vold": "after stage 2"}
    found = [(label, results.stages[model][name].accuracy) for model, label in names.items() if model in results.stages]
    return ", ".join(f"{percent(value)}% {label}" for label, value in found)


def _told(c: Comparison | None, other: str) -> str:
    """A paired difference in words."""
    if c is None:
        return f"is not compared with {other}"
    points = f"{percent(abs(c.difference))} points"
    if c.low <= 0 <= c.high:
        return f"cannot be told from {other} ({percent(c.difference, sign=True)} points)"
    return f"gains {points} over {other}" if c.difference > 0 else f"costs {points} against {other}"
