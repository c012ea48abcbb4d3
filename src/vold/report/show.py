"""`vold show`: a run in the terminal, and its report.html."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from vold.errors import ConfigError, DataError
from vold.report.reading import MINUS, decimal, rows
from vold.report.run_page import (
    OUTCOMES,
    about,
    alignments,
    check_run,
    recipe_of,
    results_of,
    stage_rows,
    write_report,
)
from vold.report.run_samples import GAP_LIMIT, pick_rollouts, stored_steps
from vold.run.console import console
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST = ("loss", "reward", "entropy", "grad_norm", "groups_all_pass", "groups_all_fail", "mean_tokens", "teacher_tokens")
"""Metrics of the last step that are printed, as far as a stage has them."""
OVER, UNDER, GROUND = (240, 140, 50), (110, 165, 245), (245, 245, 243)
"""Colours (RGB) of tokens the student is surer of than the teacher, of the contrary, and of a gap of zero."""


def show(
    target: str | Path, overrides: Sequence[str] = (), *, step: int | None = None, limit: int | None = None
) -> Path:
    """Print what a run has done and write its report. Returns the report's path.

    Args:
        target: a run directory, or the recipe of a run.
        overrides: `key.path=value` for a recipe; `step=N` and `limit=N` are those below.
        step: the stored step whose rollouts are printed; the last one if absent.
        limit: how many failed, and how many passed, rollouts are printed; 2 if absent.

    Raises:
        DataError: there is no run here, or that step is not stored.
        ConfigError: an override that cannot be read.
    """
    own, rest = _options(overrides)
    step, limit = own.get("step", step), own.get("limit", limit)
    run_dir = _run_dir(target, rest)
    check_run(run_dir)
    stored = stored_steps(run_dir)
    if step is not None and step not in stored:
        raise DataError(
            "the rollouts of this step are not stored",
            where=str(run_dir / "distill" / "rollouts"),
            got=f"step {step}",
            fix=f"one of {', '.join(map(str, stored))}" if stored else "run `vold distill` first",
        )
    recipe = recipe_of(run_dir)
    console.print(Text(str(run_dir), style="bold"))
    for label, value in about(run_dir, recipe):
        console.print(Text.assemble((f"{label:<10}", "dim"), value))
    _print_stages(stage_rows(run_dir, recipe))
    _print_results(results_of(run_dir))
    for found in alignments(run_dir):
        line = Text.assemble("\n", ("alignment ", "dim"), (f"{found['when']} " if found["when"] else "", "dim"))
        console.print(line.append(str(found["verdict"]), style="bold").append(f": {found['words']}"))
    console.print()
    for stage in ("sft", "distill"):
        _print_last(stage, rows(run_dir / stage / "metrics.jsonl"))
    if stored:
        step = max(stored) if step is None else step
        _print_rollouts(step, rows(stored[step]), 2 if limit is None else limit)
    page = write_report(run_dir)
    console.print(Text.assemble("\nwrote ", str(page)))
    return page


def _options(overrides: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    own: dict[str, int] = {}
    rest = []
    for item in overrides:
        key, _, value = item.partition("=")
        if key not in ("step", "limit"):
            rest.append(item)
        elif value.isdecimal():
            own[key] = int(value)
        else:
            raise ConfigError(f"{key} is a whole number", where="command line", got=item, fix=f"write {key}=3")
    return own, rest


def _run_dir(target: str | Path, overrides: list[str]) -> Path:
    path = Path(target)
    if path.is_file():
        return load_recipe(path, overrides).run.dir
    if overrides:
        raise ConfigError(
            "a run directory takes no recipe overrides",
            where="command line",
            got=overrides[0],
            fix="give the recipe, or only step=N and limit=N",
        )
    return path


def _print_stages(stages: list[dict[str, Any]]) -> None:
    table = _table("stage", "state", "", "where")
    for s in stages:
        cells = [Text(str(s[k])) for k in ("stage", "state", "detail", "where")]
        table.add_row(*cells, style="dim" if s["state"] == "not run" else None)
    console.print()
    console.print(table)


def _print_results(results: dict[str, Any]) -> None:
    if not results["sets"]:
        return
    shares = (f">{o.replace('_', ' ')}, %" for o in OUTCOMES)
    table = _table("set", "model", ">accuracy, %", ">± std. error", ">n", *shares)
    for name, models in results["sets"].items():
        for m in models:
            cells = (name, m["model"], m["accuracy"], m["stderr"], m["n"], *m["shares"].values())
            table.add_row(*map(Text, cells))
    console.print()
    console.print(table)
    if results["comparisons"]:
        table = _table("set", "model", "against", ">points", ">95% interval", ">p")
        for c in results["comparisons"]:
            cells = (c["set"], c["model"], c["against"], c["difference"], f"{c['low']} to {c['high']}", c["p"])
            table.add_row(*(Text(str(x)) for x in cells))
        console.print()
        console.print(table)


def _print_last(stage: str, found: list[dict[str, Any]]) -> None:
    if found:
        last = found[-1]
        values = [f"{k} {decimal(last[k])}" for k in LAST if k in last]
        console.print(Text.assemble((f"{stage} step {last.get('step')}  ", "dim"), ", ".join(values)))


def _print_rollouts(step: int, found: list[dict[str, Any]], limit: int) -> None:
    console.print()
    line = Text.assemble((f"rollouts of step {step}", "bold"), f"  student {MINUS} teacher: ")
    for gap in (-GAP_LIMIT, -GAP_LIMIT / 2, 0.0, GAP_LIMIT / 2, GAP_LIMIT):
        line.append(f" {gap:+g} ".replace("-", MINUS), style=gap_style(gap))
    console.print(line.append(" nats; tokens the teacher did not read are plain", style="dim"))
    for r in pick_rollouts(found, limit):
        console.print()
        verdict = ("passed", "bold green") if r["passed"] else ("failed", "bold red")
        head = Text.assemble(verdict, f"  reward {r['reward']}, answer {r['extracted']}, reference {r['reference']}")
        read = f"mean gap {r['mean_gap']} nats" if r["mean_gap"] else "not read by the teacher"
        console.print(head.append(f"  {r['note']}, {r['length']} tokens, {read}", style="dim"))
        console.print(Text(r["prompt"], style="italic"))
        body = Text()
        for token in r["tokens"]:
            body.append(token["text"], style=gap_style(token["gap"]))
            body.append(" " if r["spaced"] else "")
        console.print(body.append(f"… {r['more']} more" if r["more"] else ""))
        if r["figures"]:
            console.print(Text(", ".join(r["figures"]), style="dim"))
        for v in r["values"]:
            console.print(Text(f"{v['name']}: {v['words']}", style="dim"))
        known = [t for t in r["tokens"] if t["gap"] is not None]
        widest = sorted(known, key=lambda t: -abs(t["gap"]))[:3]
        if widest:
            words = ", ".join(f"{t['text'].strip()!r} {decimal(t['gap'], 2, sign=True)}" for t in widest)
            console.print(Text(f"widest gaps: {words}", style="dim"))


def gap_style(gap: float | None) -> str:
    """A rich style for a teacher gap in nats; empty for a token without one.

    Example:
        >>> gap_style(None), gap_style(0.0)
        ('', 'black on #f5f5f3')
    """
    if gap is None:
        return ""
    share = min(1.0, abs(gap) / GAP_LIMIT)
    end = OVER if gap > 0 else UNDER
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(GROUND, end, strict=True))
    return f"black on #{red:02x}{green:02x}{blue:02x}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table
