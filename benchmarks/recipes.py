"""What the recipes that a CPU can run cost, and what comes out: python benchmarks/recipes.py [NAME ...]

Each is run as a user would run it, in a process of its own: recipes by `vold run` (the demo by `vold demo`), methods by
their commands in docs/method.md. Figures go into benchmarks/results/recipes.json, of which docs/gallery.md is made. A
run that is there already is not measured.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from vold import Run
from vold.run.files import write_json
from vold.run.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recipes.json"
ON_A_CPU = (
    "demo",
    "cross_modal-mini",  # begins with what demo ends in
    "eval-mini",
    "gkd-mini",
    "mopd-mini",
    "prefix_teach-mini",
    "sod-mini",
    "uni_opd-mini",
)
"""Recipes that need nothing but the package, in the order in which they need each other."""
LAST = 5
"""Steps at each end of a run whose mean reward is kept."""


def method_commands() -> dict[str, list[str]]:
    """The commands of docs/method.md that run a method in miniature, by the name of their run."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^vold (?:distill|balance) .*$", (ROOT / "docs" / "method.md").read_text(), re.MULTILINE):
        found.setdefault(line.partition("run.dir=runs/")[2].split()[0], []).append(line)
    return found


def measure(name: str) -> dict[str, Any]:
    """Seconds of a processor, memory, and the accuracies of a recipe or the rewards of a method.

    Raises:
        SystemExit: it has been run before, or fails.
    """
    commands = method_commands().get(name)
    run = ROOT / (f"runs/{name}" if commands else load_recipe(ROOT / "recipes" / f"{name}.yaml").run.dir)
    if run.exists():
        sys.exit(f"{run} is there: what is left of it to do says nothing of the whole; move it away")
    seconds, peak = 0.0, 0
    for line in commands or ["vold demo" if name == "demo" else f"vold run recipes/{name}.yaml"]:
        child = subprocess.Popen([sys.executable, "-m", "vold.cli", *shlex.split(line)[1:]], cwd=ROOT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{line} ended with {child.returncode}")
        seconds, peak = seconds + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss // 1024)
    came_out = {"reward": rewards(run)} if commands else {"accuracy": accuracies(run)}
    return {"cpu_seconds": round(seconds), "peak_mib": peak, **came_out}


def accuracies(run: Path) -> dict[str, dict[str, list[float]]]:
    """By model and set, with their standard errors."""
    return {
        model: {name: [figures.accuracy, figures.stderr] for name, figures in sets.items()}
        for model, sets in Run(run).results.stages.items()
    }


def rewards(run: Path) -> list[float]:
    """The mean reward of the first and of the last steps of stage 2."""
    found = [row.reward for row in Run(run).metrics("distill")]
    return [round(fmean(part), 4) for part in (found[:LAST], found[-LAST:])]


def main() -> None:
    """Measure those that are named, or all."""
    for name in sys.argv[1:] or (*ON_A_CPU, *method_commands()):
        found = measure(name)
        write_json(RESULTS, (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {name: found})


if __name__ == "__main__":
    main()
