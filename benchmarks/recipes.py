"""What the recipes that a CPU can run cost, and what comes out: python benchmarks/recipes.py [NAME ...]

Each is run as a user would run it, in a process of its own, by `vold run`; its figures go into
benchmarks/results/recipes.json, from which docs/gallery.md is written. A run that is there already is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
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


def measure(name: str) -> dict[str, Any]:
    """Seconds, memory and accuracies of one recipe.

    Raises:
        SystemExit: it has been run before, or fails.
    """
    file = f"recipes/{name}.yaml"
    run = ROOT / load_recipe(ROOT / file).run.dir
    if run.exists():
        sys.exit(f"{run} is there: what is left of it to do says nothing of the whole; move it away")
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "vold.cli", "run", file], cwd=ROOT)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{file} ended with {child.returncode}")
    return {
        "seconds": round(time.monotonic() - began),
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "peak_mib": used.ru_maxrss // 1024,
        "accuracy": {
            model: {name: [figures.accuracy, figures.stderr] for name, figures in sets.items()}
            for model, sets in Run(run).results.stages.items()
        },
    }


def main() -> None:
    """Measure those that are named, or all."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or ON_A_CPU:
        found[name] = measure(name)
        write_json(RESULTS, found)


if __name__ == "__main__":
    main()
