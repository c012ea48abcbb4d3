"""`vold run`: all stages of a recipe. `vold demo`: those of VOLD on the demo world, and what they show."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.text import Text

from vold.demo.picture import draw_example
from vold.demo.story import story
from vold.engines.launch.serving import keeping
from vold.evals.engine_check import self_check
from vold.evals.evaluate import evaluate
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.model.loading import stage_models
from vold.report import write_report
from vold.report.readings import readings
from vold.report.run_page import answers_of
from vold.report.tables import print_alignment, print_balance, print_results, print_self_check
from vold.run.comparison import Comparison
from vold.run.console import console, print_next
from vold.run.files import write_json
from vold.run.lock import owning
from vold.run.readiness import after_align, align_doubt
from vold.run.recipe import load_recipe
from vold.run.results import Breakdown
from vold.run.stopping import SIGNALS
from vold.training.balance import balance
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vold.run.recipe import Recipe
    from vold.run.results import Results

RECIPE = Path(__file__).parent / "demo.yaml"


@dataclass(frozen=True)
class DemoSummary:
    """summary.json. `wall_seconds` are of the last call; a part is one model on one task set; `story` is
    what they say."""

    wall_seconds: float
    story: Sequence[str]
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
            _enter(stage, began, recipe)
            _WORK[stage][1](recipe)
        page = write_report(recipe.run.dir)
    console.print(f"\nwrote {page}  ({time.monotonic() - began:.0f} s)")
    print_next("show", str(recipe.run.dir))


def demo(overrides: list[str]) -> DemoSummary:
    """Run check, traces, align, sft, align, distill and at the same time GRPO, and eval; write what they show.

    Beside report.html there are summary.json, example.svg (`vold.demo.picture`) and grpo/, a run of its own: stage 2 by
    GRPO from the same cold start, left out where the recipe's own stage 2 has no teacher. A stopped demo goes on where
    it was. `wall_seconds` counts this call only.
    """
    recipe = load_recipe(RECIPE, overrides)
    with owning(recipe.run.dir, "demo"):
        return _demo(recipe, overrides)


def _demo(recipe: Recipe, overrides: list[str]) -> DemoSummary:
    began, home = time.monotonic(), recipe.run.dir
    torch.set_num_threads(recipe.run.threads)
    before = ["align"] if not (home / "sft" / "final").is_dir() else []
    taught = recipe.distill is not None and recipe.distill.objective.uses_teacher
    for stage in ("check", "traces", *before, "sft", "align", "distill"):
        _enter(stage, began, recipe)
        beside = stage == "distill" and taught and not (home / "grpo" / "distill" / "final").is_dir()
        with _grpo_meanwhile(home, overrides) if beside else contextlib.nullcontext():
            _WORK[stage][1](recipe)
    models = stage_models(recipe)
    if taught:
        _enter("grpo", began, recipe)
        *earlier, last = models.items()
        models = dict([*earlier, ("grpo", _grpo(home, overrides)), last])
    _enter("eval", began, recipe)
    results = _evaluate(load_recipe(RECIPE, [*overrides, f"eval.models={json.dumps(models)}"]))
    told = story(results, readings(answers_of(home)), align_doubt(recipe), taught=taught)
    summary = DemoSummary(
        wall_seconds=round(time.monotonic() - began, 1),
        story=told,
        stages={
            model: {name: Breakdown(s.accuracy, s.stderr, s.n) for name, s in sets.items()}
            for model, sets in results.stages.items()
        },
        comparisons=results.comparisons,
    )
    write_json(home / "summary.json", summary)
    made = [home / "summary.json", draw_example(home), write_report(home)]
    console.print(Text("\nwhat happened", style="bold"))
    for number, sentence in enumerate(told, 1):
        console.print(f"{number}. {sentence}")
    console.print(f"\nwrote {', '.join(str(file) for file in made if file)}  ({summary.wall_seconds:.0f} s)")
    print_next("show", str(home))
    return summary


def _grpo(home: Path, overrides: list[str]) -> str:
    """The same stage 2 without a teacher, in a run of its own. Returns its model."""
    own = [f"run.dir={json.dumps(str(home / 'grpo'))}", f"distill.init={json.dumps(str(home / 'sft' / 'final'))}"]
    rest = [f"{stage}=null" for stage in ("traces", "sft", "align", "eval")]
    recipe = load_recipe(RECIPE, [*overrides, *own, "distill.objective={method: grpo}", *rest])
    return str(distill(recipe))


@contextlib.contextmanager
def _grpo_meanwhile(home: Path, overrides: list[str]) -> Iterator[None]:
    """Let another core train by GRPO in the meantime, without a word. Where it fails, `_grpo` goes on and says why."""
    beside = multiprocessing.get_context("spawn").Process(target=_grpo_quietly, args=(home, overrides))
    beside.start()
    try:
        yield
        beside.join()
    finally:
        beside.terminate()
        beside.join()


def _grpo_quietly(home: Path, overrides: list[str]) -> None:
    for number in SIGNALS:  # whoever started it decides
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    console.quiet = True
    with contextlib.suppress(Exception):
        _grpo(home, overrides)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _enter(stage: str, began: float, recipe: Recipe) -> None:
    taken = stage == "traces" and recipe.traces is not None and recipe.traces.answers == "data"
    head = f"{stage}: {'the solutions of the data are taken' if taken else _WORK[stage][0]}"
    console.print(Text.assemble("\n", (head, "bold"), f"  ({time.monotonic() - began:.0f} s)"))


def compare_models(recipe: Recipe) -> tuple[str, list[str]]:
    """`vold align`: compare student and teacher, or with `align.self_check` an engine with itself, and print what is
    found. Returns the verb to go on with, and what to set then."""
    if recipe.align is not None and recipe.align.self_check:
        print_self_check(self_check(recipe))
        return recipe.after("align"), []
    print_alignment(align(recipe))
    return after_align(recipe)


def _evaluate(recipe: Recipe) -> Results:
    results = evaluate(recipe)
    print_results(results, recipe.run.dir / "eval", recipe.method)
    return results


_WORK: dict[str, tuple[str, Callable[[Recipe], object]]] = {
    "check": ("can this recipe run?", check),
    "traces": ("the teacher answers text prompts", make_traces),
    "sft": ("the student learns the teacher's style, on text alone", sft),
    "align": ("do student and teacher overlap enough for stage 2?", compare_models),
    "balance": ("how often does the student solve each problem?", lambda recipe: print_balance(balance(recipe)[1])),
    "distill": ("GRPO, and the teacher's opinion on failed rollouts, on text alone", distill),
    "grpo": ("the same start and as many steps, without the teacher, trained meanwhile", distill),
    "eval": ("problems never trained on", _evaluate),
}
"""What each stage is about, and what does it."""
