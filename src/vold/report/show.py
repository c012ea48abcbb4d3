"""`vold show`: a run in the terminal, and its report.html."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from vold.errors import ConfigError
from vold.report.rollouts import GAP_LIMIT, ShownRollout, pick_rollouts
from vold.report.run_page import about, alignments, check_run, one, rows, stages_of, write_report
from vold.report.tables import print_pairs, print_results, print_table
from vold.report.text import MINUS, Json, decimal, short
from vold.run.console import console
from vold.run.recipe import load_recipe
from vold.run.rollouts import stored_step, stored_steps

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
    if step is not None:
        stored_step(run_dir, step)
    console.print(Text(str(run_dir), style="bold"))
    print_pairs(about(run_dir).items(), 10)
    console.print()
    print_table(("stage", "state", "", "where"), [(s.name, s.state, s.detail, s.where) for s in stages_of(run_dir)])
    console.print()
    print_results(one(run_dir / "eval" / "results.json"))
    for when, found in alignments(run_dir).items():
        line = Text.assemble("\n", ("alignment ", "dim"), (f"{when} " if when else "", "dim"))
        console.print(line.append(short(found.get("verdict")), style="bold").append(f": {short(found.get('words'))}"))
    console.print()
    for stage in ("sft", "distill"):
        _print_last(stage, rows(run_dir / stage / "metrics.jsonl"))
    if stored:
        step = max(stored) if step is None else step
        _print_rollouts(step, stored[step], 2 if limit is None else limit)
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
        elif value.isdecimal() and len(value) <= 9:
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


def _print_last(stage: str, found: Sequence[Json]) -> None:
    if found:
        values = [f"{k} {decimal(found[-1][k])}" for k in LAST if k in found[-1]]
        console.print(Text.assemble((f"{stage} step {decimal(found[-1].get('step'), 0)}  ", "dim"), ", ".join(values)))


def _print_rollouts(step: int, file: Path, limit: int) -> None:
    console.print()
    line = Text.assemble((f"rollouts of step {step}", "bold"), f"  student {MINUS} teacher: ")
    for gap in (-GAP_LIMIT, -GAP_LIMIT / 2, 0.0, GAP_LIMIT / 2, GAP_LIMIT):
        line.append(f" {gap:+g} ".replace("-", MINUS), style=gap_style(gap))
    console.print(line.append(" nats; tokens the teacher did not read are plain", style="dim"))
    for r in pick_rollouts(file, limit):
        console.print()
        _print_rollout(r)


def _print_rollout(r: ShownRollout) -> None:
    verdict = ("passed", "bold green") if r.passed else ("failed", "bold red")
    answer = "none" if r.row["extracted"] is None else short(r.row["extracted"])
    told = f"  reward {decimal(r.row['score'], 2)}, answer {answer}, reference {short(r.row['reference'])}"
    head = Text.assemble(verdict, told)
    gap = "not read by the teacher" if r.mean_gap is None else f"mean gap {decimal(r.mean_gap, 2, sign=True)} nats"
    console.print(head.append(f"  {short(r.row['note'])}, {r.length} tokens, {gap}", style="dim"))
    console.print(Text(f"{r.prompt.head}{' … ' * bool(r.prompt.tail)}{r.prompt.tail}", style="italic"))
    body = Text()
    for token in r.tokens:
        body.append(token.text, style=gap_style(token.value))
        body.append(" " if r.spaced else "")
    more = r.length - len(r.tokens)
    console.print(body.append(f"… {more} more" if more else ""))
    widest = sorted((t for t in r.tokens if t.value is not None), key=lambda t: -abs(t.value or 0.0))[:3]
    gaps = ", ".join(f"{t.text.strip()!r} {decimal(t.value, 2, sign=True)}" for t in widest)
    for said in (", ".join(r.figures), *(f"{v.name}: {v.words}" for v in r.values), gaps and f"widest gaps: {gaps}"):
        if said:
            console.print(Text(said, style="dim"))


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
