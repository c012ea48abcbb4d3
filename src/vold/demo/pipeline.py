"""`vold demo`: the whole of VOLD on the demo world."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.text import Text

from vold.evals.evaluate import evaluate
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.report import write_report
from vold.report.tables import print_alignment, print_results
from vold.run.console import console
from vold.run.files import write_json
from vold.run.lock import owning
from vold.run.recipe import load_recipe
from vold.run.results import Breakdown, Comparison
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.run.recipe import Recipe

RECIPE = Path(__file__).parent / "demo.yaml"


@dataclass(frozen=True)
class DemoSummary:
    """summary.json. `wall_seconds` are of the last call; a part is one model on one task set."""

    wall_seconds: float
    stages: Mapping[str, Mapping[str, Breakdown]]
    comparisons: tuple[Comparison, ...]


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
    for title, work in (
        ("check: can this recipe run?", lambda: check(recipe)),
        ("traces: the teacher answers text prompts", lambda: make_traces(recipe)),
        ("align, before the cold start", lambda: _align_base(recipe)),
        ("sft: the student learns the teacher's style (text only)", lambda: sft(recipe)),
        ("align, after the cold start", lambda: print_alignment(align(recipe))),
        ("distill: GRPO and the teacher's opinion on failed rollouts (text only)", lambda: distill(recipe)),
        ("eval: problems and handwriting never trained on", lambda: None),
    ):
        console.print(Text.assemble("\n", (title, "bold"), f"  ({time.monotonic() - began:.0f} s)"))
        work()
    results = evaluate(recipe)
    print_results(results)
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
    console.print(f"\nwrote {recipe.run.dir / 'summary.json'} and {page}  ({summary.wall_seconds:.0f} s)")
    return summary


def _align_base(recipe: Recipe) -> None:
    if not (recipe.run.dir / "sft" / "final").is_dir():
        print_alignment(align(recipe))
