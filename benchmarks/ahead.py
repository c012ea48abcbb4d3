"""What `distill.ahead: 1` gains and costs on a server of vLLM's, which recipes/image_rl-mini/python has:

    export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
    python benchmarks/ahead.py --python PYTHON --recipe recipes/demo.yaml --places 80 distill.steps=40

The recipe's traces and cold start are made once; from there each seed trains with `ahead: 0` and with `ahead: 1`, in
turn, with as many steps. A line a run: seconds a step (the median, without the first, which nothing is ahead of) and
accuracy afterwards, by task set. The ratio of the seconds is that of one seed's two runs. Stopped and started again it
goes on: finished runs are kept in --home, and the one that was cut off resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from vold.engines.launch.serving import keeping
from vold.evals.evaluate import evaluate
from vold.run.files import read_jsonl, write_json
from vold.run.recipe import Recipe, load_recipe
from vold.training.distill import distill
from vold.training.sft import sft
from vold.training.traces import make_traces

HERE = Path(__file__).parent
PHASES = ("seconds_sample", "seconds_teacher", "seconds_update")
Row = dict[str, Any]


def seconds_a_step(rows: list[Row]) -> float:
    """The median over steps but the first."""
    return statistics.median(float(sum(row[phase] for phase in PHASES)) for row in rows[1:])


def summary(rows: list[Row]) -> Row:
    """Of all seeds that have both runs: the ratio of their seconds, smallest and largest beside it, and both means."""
    runs = {(row["seed"], row["ahead"]): row for row in rows}
    seeds = sorted(s for s, ahead in runs if ahead and (s, 0) in runs)
    ratios = [runs[s, 1]["seconds"] / runs[s, 0]["seconds"] for s in seeds]
    means = {
        f"{name}_ahead_{ahead}": round(statistics.mean(runs[s, ahead][name] for s in seeds), 4)
        for name in runs[seeds[0], 1]
        if name not in ("seed", "ahead", "load")
        for ahead in (0, 1)
    }
    spread = [round(min(ratios), 3), round(max(ratios), 3)]
    return {"seeds": len(seeds), "ratio": round(statistics.median(ratios), 3), "spread": spread, **means}


def recipe_of(a: argparse.Namespace, name: str, *more: str) -> Recipe:
    """The recipe in a folder of its own: rollouts on a server, all else in this process."""
    args = ["--max-model-len", "128", "--max-num-seqs", str(a.places), "--enforce-eager"]
    launch = json.dumps({"devices": ["cpu"], "args": args, "python": str(a.python)})
    words = [f"run.dir={json.dumps(str(a.home / name))}", "teacher.server=null", "eval.endpoint=null"]
    words += [f"distill.engine={{launch: {launch}}}", "distill.mismatch.action=warn", *a.override, *more]
    return load_recipe(a.recipe, words)


def measured(a: argparse.Namespace, base: Path, seed: int, ahead: int) -> Row:
    """One run, from the cold start to its accuracy."""
    name = f"seed-{seed}-ahead-{ahead}"
    init = json.dumps(str(base))
    recipe = recipe_of(a, name, f"run.seed={seed}", f"distill.ahead={ahead}", f"distill.init={init}")
    end = distill(recipe)
    results = evaluate(recipe_of(a, name, f"run.seed={seed}", f"eval.models={{vold: {json.dumps(str(end))}}}"))
    accuracies = {f"accuracy_{name}": figures.accuracy for name, figures in results.stages["vold"].items()}
    rows = read_jsonl(a.home / name / "distill" / "metrics.jsonl")
    load = round(os.getloadavg()[0], 1)
    return {"seed": seed, "ahead": ahead, "seconds": seconds_a_step(rows), **accuracies, "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="an interpreter that has vLLM")
    parser.add_argument("--recipe", type=Path, default=HERE.parent / "recipes" / "launch-mini.yaml")
    parser.add_argument("--places", type=int, default=16, help="of the server: so many rollouts at once")
    parser.add_argument("--home", type=Path, default=Path("runs/ahead"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("override", nargs="*", help="key.path=value for all runs, such as distill.steps=60")
    a = parser.parse_args()
    kept = a.home / "rows.json"
    rows: list[Row] = json.loads(kept.read_text()) if kept.is_file() else []
    base = recipe_of(a, "base")
    make_traces(base)
    init = sft(base)
    with keeping():
        for seed in range(1, a.seeds + 1):
            for ahead in (0, 1):
                if any((row["seed"], row["ahead"]) == (seed, ahead) for row in rows):
                    continue
                rows.append(measured(a, init, seed, ahead))
                write_json(kept, rows)
                print(json.dumps(rows[-1]), flush=True)
    found = {**summary(rows), "cores": os.cpu_count(), "recipe": a.recipe.name, "override": a.override, "runs": rows}
    write_json(HERE / "results" / "ahead.json", found)
    print(json.dumps({k: v for k, v in found.items() if k != "runs"}, indent=2))


if __name__ == "__main__":
    main()
