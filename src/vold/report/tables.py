"""Results as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vold.run.results import Figures, Results, SetComparison
    from vold.run.summaries import BalanceSummary, Overlap, SelfCheck


def print_results(results: Results) -> None:
    """Accuracy of every model on every set with what went wrong, then what each gained over the ones before it."""
    console.print(_accuracies(results))
    for name, model, s in _by_set(results):
        for label, d in s.derived.items():
            figure = f"{100 * d.value:.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
            console.print(f"{name}, {model}: {label.replace('_', ' ')} {figure} (n={d.n:,})")
    for name, model, s in _by_set(results):
        if s.judge_failed:
            lost = f"the judge's reply to {s.judge_failed:,} answers could not be used; they score 0"
            console.print(f"{name}, {model}: {lost}")
    for name, about in results.sets.items():
        if about.bad_rows or about.bad_golds:
            bad = f"{len(about.bad_rows)} rows cannot be used, {len(about.bad_golds)} golds do not grade themselves"
            console.print(f"{name}: left out: {bad} (listed in results.json)")
    if results.comparisons:
        table = Table(title="paired difference, points [95% interval]", title_justify="left")
        for column in ("set", "model", "against"):
            table.add_column(column)
        table.add_column("difference", justify="right")
        table.add_column("p", justify="right")
        for c in results.comparisons:
            table.add_row(c.set, c.model, c.against, _interval(c.difference, c.low, c.high), _p(c.p_value))
        console.print(table)


def _by_set(results: Results) -> Iterator[tuple[str, str, Figures]]:
    """Set, model and figures, set by set."""
    for name in next(iter(results.stages.values())):
        for model, by_set in results.stages.items():
            yield name, model, by_set[name]


def _accuracies(results: Results) -> Table:
    table = Table(title="accuracy, % ± standard error", title_justify="left")
    table.add_column("set", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for column in ("n", "accuracy", "truncated", "unparsed", "timed out"):
        table.add_column(column, justify="right", no_wrap=column in ("n", "accuracy"))
    last = list(results.stages)[-1]
    for name, model, s in _by_set(results):
        total = max(1, sum(s.outcomes.values()))
        shares = [f"{100 * s.outcomes.get(o, 0) / total:.1f}%" for o in ("truncated", "unparsed", "timed_out")]
        count = f"{s.n:,}" if s.k == 1 else f"{s.n:,} x {s.k}"
        accuracy = f"{100 * s.accuracy:.1f} ± {100 * s.stderr:.1f}"
        table.add_row(name, model, count, accuracy, *shares, end_section=model == last)
    return table


def print_comparison(a: str, b: str, found: Sequence[SetComparison]) -> None:
    """Two evaluations item by item."""
    table = Table(title=f"{a} minus {b}, points [95% interval]", title_justify="left")
    table.add_column("set", no_wrap=True)
    for column in ("items", "A, %", "B, %", "difference", "p", "McNemar p", "detectable"):
        table.add_column(column, justify="right")
    for c in found:
        table.add_row(
            c.name,
            f"{c.n:,}",
            f"{100 * c.accuracy_a:.1f}",
            f"{100 * c.accuracy_b:.1f}",
            _interval(c.difference, c.low, c.high),
            _p(c.p_value),
            "-" if c.mcnemar_p is None else _p(c.mcnemar_p),
            f"{100 * c.detectable:.1f}",
        )
    console.print(table)
    console.print("detectable: the true difference that so many items show with 80% power")
    for c in found:
        for label, d in c.derived.items():
            figure = _interval(d.difference, d.low, d.high)
            console.print(f"{c.name}: {label.replace('_', ' ')} {figure}, p {_p(d.p_value)} (n={d.n:,})")
        if c.only_a or c.only_b:
            console.print(f"{c.name}: left out, as only one has them: {c.only_a} items of A, {c.only_b} of B")
        if c.forced:
            console.print(f"[bold]{c.name}: forced although the protocols differ[/bold]: {'; '.join(c.forced)}")


def _interval(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(value: float) -> str:
    return f"{value:.2g}"


def print_balance(summary: BalanceSummary) -> None:
    """Rows by the number of rollouts that solved them, before and after `vold balance`."""
    before, after = summary.before, summary.after
    table = Table(title="rows by rollouts that solved them", title_justify="left")
    table.add_column("solved", justify="right", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
    for solved in range(len(before)):
        cells = [cell for part in (before, after) for cell in (f"{part[solved]:,}", _bar(part[solved], max(part)))]
        table.add_row(f"{solved} of {summary.rollouts}", *cells)
    table.add_section()
    table.add_row("all", f"{sum(before):,}", "", f"{sum(after):,}", "")
    console.print(table)
    said = f"{summary.left_out:,} of {summary.problems:,} problems left out"
    console.print(f"{said}; {summary.truncated:.1%} of the rollouts were cut at max_new_tokens")


def _bar(value: int, most: int) -> str:
    return "█" * round(20 * value / most)


def print_alignment(figures: Overlap) -> None:
    """The figures of `vold align` and its verdict."""
    table = Table(title=f"{figures.student} against {figures.teacher}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    failed, entropy, top1 = figures.kl_failed, figures.teacher_entropy, figures.top1_agreement
    for name, value in (
        ("KL(student || teacher), nats per token", f"{figures.kl:.3f}"),
        ("the same on failed rollouts", "-" if failed is None else f"{failed:.3f}"),
        ("top-1 agreement", "-" if top1 is None else f"{top1:.1%}"),
        ("teacher's mass on the student's tokens", f"{figures.teacher_mass:.1%}"),
        (
            "entropy of the student / the teacher, nats",
            f"{figures.student_entropy:.3f} / {'-' if entropy is None else f'{entropy:.3f}'}",
        ),
        ("rollouts that pass", f"{figures.pass_rate:.1%}"),
        ("tokens", f"{figures.tokens:,}"),
        ("of these, aligned with the teacher's", f"{figures.aligned_share:.1%}"),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(f"[bold]{figures.verdict}[/bold]: {figures.words}")


def print_self_check(figures: SelfCheck) -> None:
    """The figures of `vold align RECIPE align.self_check=true`."""
    console.print(
        f"[bold]teacher == student[/bold]: KL {figures.kl:.1e} nats per token over {figures.tokens:,} tokens "
        f"(at most {figures.limit:g}); |log ratio| {figures.mean:.1e} on average, "
        f"{figures.largest:.1e} at most"
    )
