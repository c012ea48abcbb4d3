"""`vold show`: a run in the terminal, and its report.html; or as a page that follows it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from vold.errors import ConfigError
from vold.report.rollouts import FIRST, GAP_LIMIT, ShownRollout, pick_rollouts
from vold.report.run_page import about, alignments, write_report
from vold.report.serve import Server
from vold.report.standing import asked_of, check_run, metrics_of, one, standing
from vold.report.tables import print_pairs, print_results, print_table
from vold.report.text import MINUS, Json, at, decimal, short
from vold.run.as_run import RECIPE
from vold.run.console import console, print_next
from vold.run.recipe import load_recipe
from vold.run.rollouts import stored_step, stored_steps
from vold.run.state import failure, runs_in

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
    metrics = metrics_of(run_dir)
    now = standing(run_dir, metrics, asked_of(run_dir))
    console.print(Text(str(run_dir), style="bold"))
    print_pairs(about(run_dir).items(), 10)
    console.print()
    print_table(("stage", "state", "", "where"), [(s.name, s.state, s.detail, s.where) for s in now.stages])
    if now.state == "failed" and (why := failure(run_dir)):
        console.print(Text.assemble(("failed  ", "bold red"), short(why)))
    console.print()
    print_results(one(run_dir / "eval" / "results.json"))
    for when, verdict in alignments(run_dir).items():
        line = Text.assemble("\n", ("alignment ", "dim"), (f"{when} " if when else "", "dim"))
        line.append(short(verdict.get("verdict")), style="bold")
        console.print(line.append(f": {short(verdict.get('words'))}"))
    console.print()
    for stage, found in metrics.items():
        _print_last(stage, found)
    if stored:
        step = max(stored) if step is None else step
        _print_rollouts(step, stored[step], 2 if limit is None else limit)
    page = write_report(run_dir)
    console.print(Text.assemble("\nwrote ", str(page)))
    if now.state in ("stopped", "failed") and (run_dir / RECIPE).is_file():
        print_next("run", str(run_dir / RECIPE), *_elsewhere(run_dir))
    else:
        print_next("show", str(run_dir), "--serve")
    return page


def _elsewhere(run_dir: Path) -> list[str]:
    """The override with which a run's own recipe goes on here, where the run was moved or renamed since."""
    written = at(one(run_dir / RECIPE), "run", "dir")
    if not isinstance(written, str) or Path(written).expanduser().resolve() == run_dir.resolve():
        return []
    return [f"run.dir={run_dir}"]


def serve(target: str | Path, overrides: Sequence[str] = (), port: str | None = None) -> None:
    """Serve a run, or every run of a folder, as a page that follows it, until Ctrl-C.

    Args:
        target: a run directory, the recipe of a run, or a folder of runs.
        overrides: `key.path=value` for a recipe.
        port: a number; any that is free if absent.

    Raises:
        DataError: there is no run.
        ConfigError: an override that cannot be read, or a port that cannot be taken.
    """
    folder = _run_dir(target, overrides)
    if not runs_in(folder):
        check_run(folder)
    wanted = port or "0"
    fix = "write a number from 1024 to 65535 that no program has taken, or leave --port out"
    if not (wanted.isascii() and wanted.isdecimal() and len(wanted) <= 5 and int(wanted) < 65536):
        raise ConfigError("this is no port", where="--port", got=wanted, fix=fix)
    try:
        server = Server(folder, int(wanted))
    except OSError as error:
        raise ConfigError("this port cannot be taken", where="--port", got=f"{wanted}: {error}", fix=fix) from None
    with server, contextlib.suppress(KeyboardInterrupt):
        console.print(
            Text.assemble("the page is at ", (server.address, "bold"), f"\nit shows {folder}; Ctrl-C ends it")
        )
        server.serve_forever()


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


def _run_dir(target: str | Path, overrides: Sequence[str]) -> Path:
    path = Path(target)
    if path.is_file():
        return load_recipe(path, [*overrides]).run.dir
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
    grade = r.stored.rollout.grade
    verdict = ("passed", "bold green") if grade.score >= 1 else ("failed", "bold red")
    answer = "none" if grade.extracted is None else short(grade.extracted)
    told = f"  reward {decimal(grade.score, 2)}, answer {answer}, reference {short(r.stored.question.reference)}"
    head = Text.assemble(verdict, told)
    mean = "not read by the teacher" if r.mean_gap is None else f"mean gap {decimal(r.mean_gap, 2, sign=True)} nats"
    console.print(head.append(f"  {short(grade.note)}, {r.length} tokens, {mean}", style="dim"))
    console.print(Text(f"{r.prompt.head}{' … ' * bool(r.prompt.tail)}{r.prompt.tail}", style="italic"))
    body = Text()
    for place, (text, gap) in enumerate(r.tokens):
        if r.left_out and place == FIRST:
            body.append(f" … {r.left_out} left out here … ", style="dim")
        body.append(text, style=gap_style(gap))
        body.append(" " if r.spaced else "")
    console.print(body)
    widest = sorted(((t, g) for t, g in r.tokens if g is not None), key=lambda pair: -abs(pair[1]))[:3]
    told = ", ".join(f"{text.strip()!r} {decimal(gap, 2, sign=True)}" for text, gap in widest)
    named = (f"{name}: {words}" for name, words in r.values.items())
    for said in (", ".join(r.figures), *named, told and f"widest gaps: {told}"):
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
