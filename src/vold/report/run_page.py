"""What a run directory holds, made ready to be shown, and the page that shows it.

Nothing here may fail on a run that is half done, cut short or written by an older version: what cannot be read is left
out. Only a directory that holds no run at all is an error. All text of models and data is escaped by the template.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader

from vold.errors import DataError
from vold.report.line_charts import distill_charts, sft_charts
from vold.report.reading import DASH, Row, at, decimal, number, one, rows
from vold.report.run_samples import GAP_LIMIT, ROLLOUTS, mean_gap, pick_rollouts, problems, stored_steps
from vold.run.files import write_text

STAGES = ("traces", "sft", "align", "distill", "eval")
OUTCOMES = ("wrong", "unparsed", "truncated", "timed_out")


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run directory, from whatever the run has made so far. Returns the file.

    Raises:
        DataError: the directory holds no run.
    """
    run_dir = Path(run_dir)
    check_run(run_dir)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    html = environment.get_template("run_page.html.j2").render(context(run_dir))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = hashlib.sha256(script.group(1).encode() if script else b"").digest()
    html = html.replace("SCRIPT-HASH", f"'sha256-{base64.b64encode(digest).decode()}'", 1)
    write_text(run_dir / "report.html", html)
    return run_dir / "report.html"


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


def context(run_dir: Path) -> Row:
    """Everything the template shows."""
    recipe, results = recipe_of(run_dir), results_of(run_dir)
    stored = stored_steps(run_dir)
    gaps = [(float(step), g) for step, file in stored.items() if (g := mean_gap(rows(file))) is not None]
    distill = rows(run_dir / "distill" / "metrics.jsonl")
    shown = [step for i, step in enumerate(stored) if i in (0, len(stored) - 1)]
    return {
        "name": run_dir.resolve().name,
        "about": about(run_dir, recipe),
        "stages": stage_rows(run_dir, recipe),
        "results": results,
        "kinds": {name: by_kind(results, name) for name in results["sets"]},
        "alignments": alignments(run_dir),
        "traces": one(run_dir / "traces" / "summary.json"),
        "sft_charts": sft_charts(rows(run_dir / "sft" / "metrics.jsonl")),
        "distill_charts": distill_charts(distill, gaps),
        "steps": [{"step": s, "rollouts": pick_rollouts(rows(stored[s]), ROLLOUTS)} for s in shown],
        "problems": problems(run_dir, results),
        "gap_limit": GAP_LIMIT,
        "outcomes": OUTCOMES,
    }


def recipe_of(run_dir: Path) -> Row:
    """The stored recipe as it was written, unvalidated: a run of an older version can be shown too."""
    try:
        value = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def about(run_dir: Path, recipe: Row) -> list[tuple[str, str]]:
    """What the run is: label and value, for the head of the page and the terminal."""
    versions = one(run_dir / "versions.json")
    pairs = [
        ("student", at(recipe, "student", "path")),
        ("teacher", at(recipe, "teacher", "path")),
        ("objective", at(recipe, "distill", "objective", "method")),
        ("seed", at(recipe, "run", "seed")),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
    ]
    return [(k, str(v)) for k, v in pairs if v not in (None, "")]


def stage_rows(run_dir: Path, recipe: Row) -> list[Row]:
    """Each stage with its state (`done`, `begun`, `not run`), what is known of it, and where it lies."""
    metrics = {s: rows(run_dir / s / "metrics.jsonl") for s in ("sft", "distill")}
    traces, align = one(run_dir / "traces" / "summary.json"), one(run_dir / "align" / "align.json")
    results = one(run_dir / "eval" / "results.json")
    done = {
        "traces": bool(traces),
        "align": bool(align),
        "eval": bool(results),
        **{s: (run_dir / s / "final").is_dir() for s in metrics},
    }
    detail = {
        "traces": f"{traces.get('kept')} of {traces.get('answers')} answers kept, {traces.get('correct')} correct",
        "align": f"{align.get('verdict')}: {decimal(align.get('kl'))} nats per token",
        "eval": ", ".join(str(m) for m in at(results, "stages") or {}),
    }
    for stage, found in metrics.items():
        last = found[-1] if found else {}
        key = "loss" if stage == "sft" else "reward"
        steps = f"{len(found)} of {at(recipe, stage, 'steps') or '?'} steps"
        detail[stage] = f"{steps}, last {key} {decimal(last.get(key))}" if found else ""
    out = []
    for stage in STAGES:
        state = "done" if done[stage] else "begun" if (run_dir / stage).is_dir() else "not run"
        text = detail[stage] if state == "done" or stage in metrics else ""
        out.append({"stage": stage, "state": state, "detail": text, "where": f"{stage}/" if state != "not run" else ""})
    return out


def results_of(run_dir: Path) -> Row:
    """`eval/results.json` as text cells: accuracies and shares in percent, differences in points."""
    raw = one(run_dir / "eval" / "results.json")
    found: dict[str, list[Row]] = {}
    for model, by_set in (at(raw, "stages") or {}).items():
        for name, s in (by_set if isinstance(by_set, dict) else {}).items():
            n = number(at(s, "n")) or 0
            found.setdefault(name, []).append(
                {
                    "model": model,
                    "accuracy": decimal(at(s, "accuracy"), 1, 100),
                    "stderr": decimal(at(s, "stderr"), 1, 100),
                    "n": f"{n:,.0f}",
                    "tokens": decimal(at(s, "mean_tokens"), 1),
                    "shares": {o: decimal((at(s, "outcomes", o) or 0) / n, 1, 100) if n else DASH for o in OUTCOMES},
                    "by_kind": at(s, "by_kind") or {},
                }
            )
    compared = [
        {
            "set": c.get("set"),
            "model": c.get("model"),
            "against": c.get("against"),
            "difference": decimal(c.get("difference"), 1, 100, sign=True),
            "low": decimal(c.get("low"), 1, 100, sign=True),
            "high": decimal(c.get("high"), 1, 100, sign=True),
            "p": DASH if (p := number(c.get("p_value"))) is None else "<0.001" if p < 0.001 else f"{p:.3f}",
            "clear": (number(c.get("low")) or 0) > 0 or (number(c.get("high")) or 0) < 0,
        }
        for c in raw.get("comparisons") or []
        if isinstance(c, dict)
    ]
    compared.sort(key=lambda c: list(found).index(c["set"]) if c["set"] in found else len(found))
    return {"sets": found, "comparisons": compared}


def by_kind(results: Row, name: str) -> list[tuple[str, list[str]]]:
    """Accuracy in percent of every model, in the order of the stage table, for each kind of problem in a set."""
    models = results["sets"][name]
    kinds = sorted({k for m in models for k in m["by_kind"]})
    return [(k, [decimal(m["by_kind"].get(k), 1, 100) for m in models]) for k in kinds]


def alignments(run_dir: Path) -> list[Row]:
    """The alignment figures: before and after the cold start where both were taken, else the last ones."""
    parts = [(f"{when} the cold start", one(run_dir / "align" / f"{when}-sft.json")) for when in ("before", "after")]
    found = [(when, f) for when, f in parts if f]
    if not found:
        found = [("", f)] if (f := one(run_dir / "align" / "align.json")) else []
    return [
        {
            "when": when,
            "verdict": f.get("verdict", ""),
            "words": f.get("words", ""),
            "figures": [
                ("KL(student ‖ teacher), nats per token", decimal(f.get("kl"))),
                ("the same on failed rollouts", decimal(f.get("kl_failed"))),
                ("same favourite token, %", decimal(f.get("top1_agreement"), 1, 100)),
                ("teacher's probability of the student's tokens, %", decimal(f.get("teacher_mass"), 1, 100)),
                ("student's entropy, nats", decimal(f.get("student_entropy"))),
                ("teacher's entropy, nats", decimal(f.get("teacher_entropy"))),
                ("rollouts that pass, %", decimal(f.get("pass_rate"), 1, 100)),
                ("tokens", decimal(f.get("tokens"), 0)),
                ("of these, aligned with the teacher's, %", decimal(f.get("aligned_share"), 1, 100)),
            ],
        }
        for when, f in found
    ]
