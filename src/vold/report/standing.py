"""How a run stands: its stages, what they have logged so far, and whether a process is at work.

Nothing here may fail on a run that is half done, was killed or written by an older version: what is not there is left
out. A directory that holds no run at all is an error, and so is a damaged file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.errors import CheckpointError, ConfigError, DataError
from vold.report.headline import left, trained, watched
from vold.report.text import Json, at, decimal, listed, number, part, words
from vold.run.directory import ended_early, is_finished
from vold.run.files import MEND, bad_row, read_bytes, read_json, read_jsonl
from vold.run.looks import read_evals
from vold.run.metrics import MEND_METRICS, METRICS, refuse_gaps
from vold.run.state import STAGES, State, state_of
from vold.run.yaml_text import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vold.run.looks import EvalRow


EARLY = "ended early"
"""The state of a stage that has its model without all steps of the recipe."""


@dataclass(frozen=True)
class StageState:
    """A stage of a run: its state (`done`, `ended early`, `begun`, `not run`), what is known of it, where it lies."""

    name: str
    state: str
    detail: str
    where: str


@dataclass(frozen=True)
class Standing:
    """How a run stands: `left` is about how long the stage that trains still takes, `coming` has the stages that a
    process at work goes through, `trained` what training has come to in sentences."""

    state: State
    left: str
    coming: list[str]
    trained: list[str]
    stages: list[StageState]


def metrics_of(run_dir: Path) -> dict[str, list[Json]]:
    """The metrics of the stages that train."""
    return {stage: rows(run_dir / stage / METRICS) for stage in ("sft", "distill")}


def asked_of(run_dir: Path) -> dict[str, Sequence[EvalRow]]:
    """The evaluations of the same stages while they trained."""
    return {stage: read_evals(run_dir / stage) for stage in ("sft", "distill")}


def standing(run_dir: Path, metrics: Mapping[str, Sequence[Json]], evals: Mapping[str, Sequence[EvalRow]]) -> Standing:
    """How a run stands, by what it has stored and whether a process owns it."""
    recipe = one(run_dir / "recipe.yaml")
    stages = stages_of(run_dir, metrics)
    state = state_of(run_dir, finished=_is_over(stages, recipe))
    begun = {s.name for s in stages if s.state == "begun"}
    active = next((s for s in ("distill", "sft") if s in begun and metrics[s]), "")
    soon = left(active, metrics[active], at(recipe, active, "steps")) if active and state == "running" else ""
    asked = evals["distill"] or evals["sft"]
    coming = wanted(recipe) if state == "running" else []
    return Standing(state, soon, coming, [*trained(metrics), *(watched(asked) if asked else ())], stages)


def _is_over(stages: Sequence[StageState], recipe: Json) -> bool:
    """Whether the last stage that the recipe has is done, and none before it goes on: with more steps it is begun again
    while what was made after it is still there."""
    state = {s.name: s.state for s in stages}
    found = [state[name] for name in wanted(recipe)]
    return bool(found) and found[-1] in ("done", EARLY) and "begun" not in found


def wanted(recipe: Json) -> list[str]:
    """The stages that the recipe has, in their order; `align` changes nothing and is none of them."""
    return [name for name in ("traces", "sft", "balance", "distill", "eval") if recipe.get(name) is not None]


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


def stages_of(run_dir: Path, metrics: Mapping[str, Sequence[Json]]) -> list[StageState]:
    """Each stage and how far it is; `balance` where the run has it. `metrics` are those of the stages that train."""
    files = ("recipe.yaml", "traces/summary.json", "align/align.json", "balance/summary.json", "eval/results.json")
    recipe, traces, align, balance, results = (one(run_dir / file) for file in files)
    kept, answers, correct = (words(traces.get(key)) for key in ("kept", "answers", "correct"))
    details = {
        "traces": traces and f"{kept} of {answers} answers kept, {correct} correct",
        "sft": _steps(metrics["sft"], recipe, "sft", "loss"),
        "align": align and f"{words(align.get('verdict'))}: {decimal(align.get('kl'))} nats per token",
        "balance": balance and _balanced(balance),
        "distill": _steps(metrics["distill"], recipe, "distill", "reward"),
        "eval": results and ", ".join(part(results, "stages")),
    }
    out = []
    for stage, detail in details.items():
        behind, steps = metrics.get(stage), int(number(at(recipe, stage, "steps")) or 0)
        done = bool(detail) if behind is None else is_finished(run_dir / stage, steps)
        state = "done" if done else "begun" if (run_dir / stage).is_dir() else "not run"
        if done and behind is not None and ended_early(run_dir / stage) == len(behind):
            state = EARLY
        if stage != "balance" or state != "not run" or recipe.get(stage) is not None:
            out.append(StageState(stage, state, str(detail or ""), f"{stage}/" if state != "not run" else ""))
    return out


def _balanced(summary: Json) -> str:
    """How many rows `vold balance` has made of how many problems."""
    made = math.fsum(filter(None, map(number, listed(summary.get("after")))))
    return f"{decimal(made, 0)} rows of {words(summary.get('problems'))} problems"


def _steps(found: Sequence[Json], recipe: Json, stage: str, key: str) -> str:
    of = at(recipe, stage, "steps") or "?"
    return f"{len(found)} of {of} steps, last {key} {decimal(found[-1].get(key))}" if found else ""
