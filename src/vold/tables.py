"""Results as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from vold.progress import console


def print_results(results: dict[str, Any]) -> None:
    """Accuracy of every model on every set, then what each gained over the ones before it."""
    stages = results["stages"]
    sets = list(next(iter(stages.values())))
    table = Table(title="accuracy, % ± standard error", title_justify="left")
    table.add_column("model")
    for name in sets:
        table.add_column(f"{name} (n={next(iter(stages.values()))[name]['n']})", justify="right")
        table.add_column("wrong / unparsed / truncated", justify="right")
    for model, by_set in stages.items():
        cells = []
        for name in sets:
            s = by_set[name]
            o = s["outcomes"]
            cells.append(f"{100 * s['accuracy']:.1f} ± {100 * s['stderr']:.1f}")
            cells.append(f"{o.get('wrong', 0)} / {o.get('unparsed', 0)} / {o.get('truncated', 0)}")
        table.add_row(model, *cells)
    console.print(table)
    if not results["comparisons"]:
        return
    table = Table(title="paired difference, points [95% interval]", title_justify="left")
    for column in ("set", "model", "against"):
        table.add_column(column)
    table.add_column("difference", justify="right")
    table.add_column("p", justify="right")
    for c in results["comparisons"]:
        low, high = 100 * c["low"], 100 * c["high"]
        difference = f"{100 * c['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        table.add_row(c["set"], c["model"], c["against"], difference, f"{c['p_value']:.2g}")
    console.print(table)


def print_alignment(figures: dict[str, Any]) -> None:
    """The figures of `vold align` and its verdict."""
    table = Table(title=f"{figures['student']} against {figures['teacher']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    failed = figures["kl_failed"]
    for name, value in (
        ("KL(student || teacher), nats per token", f"{figures['kl']:.3f}"),
        ("the same on failed rollouts", "-" if failed is None else f"{failed:.3f}"),
        ("top-1 agreement", f"{figures['top1_agreement']:.1%}"),
        ("teacher's mass on the student's tokens", f"{figures['teacher_mass']:.1%}"),
        (
            "entropy of the student / the teacher, nats",
            f"{figures['student_entropy']:.3f} / {figures['teacher_entropy']:.3f}",
        ),
        ("rollouts that pass", f"{figures['pass_rate']:.1%}"),
        ("tokens compared", f"{figures['tokens']:,}"),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(f"[bold]{figures['verdict']}[/bold]: {figures['words']}")
