"""Results as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vold.errors import clean
from vold.report.charts import FAILURES
from vold.report.evaluation import evaluation
from vold.report.run_page import ALIGNMENT
from vold.report.text import Json, decimal, number, p_value, percent, short, spaced
from vold.run.console import command, console
from vold.run.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import JustifyMethod

    from vold.report.evaluation import Measured, MeasuredSet, Score
    from vold.run.comparison import SetComparison
    from vold.run.results import Results
    from vold.run.summaries import BalanceSummary, Overlap, SelfCheck

SHARES = ("wrong", "truncated", "unparsed", "timed_out")
MANY = 0.05
"""A share of answers that came to nothing which a sentence names."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table without lines; numbers stand right below a column whose name begins with `>`.

    Where a terminal is narrower than the table, each row is a list of its cells: nothing is cut.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    heads = [column.removeprefix(">") for column in columns]
    width = sum(max(map(cell_len, column)) + 2 for column in zip(heads, *cells, strict=True)) - 2
    if console.is_terminal and width > console.width:
        _print_stacked(heads, cells, title)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify, no_wrap=column == "set")
    for row in cells:
        table.add_row(*map(Text, row))
    table.width = max(width, 1)  # a pipe has no width of its own
    console.print(table, crop=False)


def _print_stacked(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    """A table as a list: the first cell of each row, and below it the others with their heads."""
    if title is not None:
        console.print(Text(title, style="italic"))
    for first, *others in rows:
        console.print(Text(first, style="bold"))
        print_pairs([(f"  {head}", cell) for head, cell in zip(heads[1:], others, strict=True) if cell], 16)


def print_pairs(pairs: Iterable[tuple[str, str]], width: int) -> None:
    """Print labels, dim and `width` wide, with their values."""
    for label, value in pairs:
        console.print(Text.assemble((f"{label:<{width}}", "dim"), clean(value)))


def print_results(results: Results | Json, written: Path | None = None, method: str | None = None) -> None:
    """The scores of every model with what went wrong, what each gained over the ones before it, and a sentence a set.

    `written` is the folder of the results: where to look next is said. `method`: by which stage 2 has trained the model
    that is called `vold` whatever it was trained by.
    """
    shown = evaluation(results, {}, 0)
    scored = [(s, score, r) for s in shown.sets.values() for score in s.scores for r in score.rows]
    if scored:
        shares = (f">{o.replace('_', ' ')}" for o in SHARES)
        columns = ("set", "score", "model", ">n", ">% ± error", ">95% interval", *shares)
        print_table(columns, [_score_row(*row) for row in scored], "scores, and shares of answers, %")
    for s in shown.sets.values():
        if s.bad_rows or s.bad_golds:
            bad = f"{len(s.bad_rows)} rows cannot be used, {len(s.bad_golds)} golds do not grade themselves"
            _print(f"{s.name}: left out: {bad} (listed in results.json)")
    if shown.differences:
        rows = [(d.set, spaced(d.score), d.model, d.against, *_interval(d.figures)) for d in shown.differences]
        console.print()
        print_table(
            ("set", "score", "model", "against", ">difference", ">p", ">corrected"),
            rows,
            "paired difference, points [95% interval]",
        )
    for n, s in enumerate(s for s in shown.sets.values() if s.scores):
        _print(f": {_sentence(s)}.", ("" if n else "\n") + s.title)
    if "vold" in shown.models and method not in (None, "vold"):
        _print(f": the model of stage 2, trained by {method}.", "vold")
    if written is not None:
        _print(f"\nfigures, every answer and why it counts: {written / 'results.html'}")
        peers = written / "vlmevalkit"
        _print(
            f"all scores as a table: {written / 'results.csv'}"
            + f"; VLMEvalKit's score files: {peers}" * peers.is_dir()
        )
        names = [*shown.models, "OTHER_RUN"][:2]
        pair = " ".join(str(written / m) if m in shown.models else m for m in names)
        _print(f"two models, question by question: {command()} compare {pair}")


def _score_row(s: MeasuredSet, score: Score, r: Measured) -> tuple[str, ...]:
    count = decimal(r.figures.get("n"), 0) + (f" x {decimal(r.k, 0)}" if r.k != 1 else "")
    value, interval = f"{percent(r.value)} ± {percent(r.stderr)}", f"{percent(r.low)} to {percent(r.high)}"
    return s.name, spaced(score.name), r.label, count, value, interval, *(percent(r.outcomes.get(o)) for o in SHARES)


def _sentence(s: MeasuredSet) -> str:
    """What a set says: its scores, of how many questions, and what is special about them."""
    said = []
    for score in s.scores:
        sign, best = ("%", "") if score.most == 1 else ("", f" of {decimal(100 * score.most, 0)}")
        bars = [f"{r.label} {percent(r.value)}{sign} [{percent(r.low)}, {percent(r.high)}]" for r in score.rows]
        peers = [f"{r.label} {percent(r.peer)}{sign}" for r in score.rows if r.peer is not None]
        said.append(f"{spaced(score.name)}{best} {', '.join(bars)}")
        said += [f"as VLMEvalKit itself marks them {', '.join(peers)}"] if peers else []
    asked, official = (number(s.about.get(k)) for k in ("n_items", "official_n"))
    if asked is not None and not any(" items" in mark for mark in s.marks):  # a part says itself of how many
        of = f" of {decimal(official, 0)}" if official is not None else ""
        said.append(f"{decimal(asked, 0)}{of} questions")
    if name := s.protocol.get("name"):
        said.append(f"protocol {short(name)}")
    for r in s.rows:
        lost = [f"{percent(v)}% {spaced(o)}" for o in FAILURES if (v := r.outcomes.get(o, 0.0)) >= MANY]
        said += [f"{r.label}: {', '.join(lost)}"] if lost else []
    if any(r.outcomes.get("truncated", 0.0) >= MANY for r in s.rows):
        said.append("truncated answers reached eval.sampling.max_new_tokens")
    return "; ".join([*said, *s.remarks, *s.marks])


def print_comparison(a: str, b: str, found: Sequence[SetComparison]) -> None:
    """Two evaluations item by item: what each set is judged by, other scores, and what else is to be known of a set."""
    print_pairs([("A", a), ("B", b)], 3)
    columns = ("set", "score", ">A, %", ">B, %", ">difference", ">p", ">corrected")
    rows = [(c.name, spaced(s), *_compared(c, s)) for c in found for s in c.headline]
    print_table(columns, rows, "A minus B, points [95% interval]")
    others = [(c, s) for c in found for s in ("accuracy", *c.derived) if s not in c.headline]
    if others:
        rows = [(c.name, spaced(s), *_compared(c, s)[:-1]) for c, s in others]
        print_table(columns[:-1], rows, "\nother scores")
    tests = [(c.name, decimal(c.n, 0), p_value(c.mcnemar_p), percent(c.detectable)) for c in found]
    print_table(("set", ">items of both", ">McNemar p", ">detectable"), tests, "\nhow much the items can show")
    _print("detectable: the true difference of accuracy, in points, that so many items show with 80% power")
    for c in found:
        if c.differs:
            _print(f": of another test than published figures: {'; '.join(c.differs)}", c.name)
        if c.only_a or c.only_b:
            _print(f": left out, as only one has them: {c.only_a} items of A, {c.only_b} of B", c.name)
        if c.forced:
            _print(f": {'; '.join(c.forced)}", f"{c.name}: forced although the protocols differ")


def _compared(c: SetComparison, score: str) -> tuple[str, ...]:
    """Both figures and their difference."""
    if score == "accuracy":
        return percent(c.accuracy_a), percent(c.accuracy_b), *_interval(to_json(c))
    d = c.derived[score]
    return percent(d.a), percent(d.b), *_interval(to_json(d))


def print_balance(summary: BalanceSummary) -> None:
    """Rows by the number of rollouts that solved them, before and after `vold balance`."""
    both = (summary.before, summary.after)
    rows = []
    for solved in range(len(summary.before)):
        cells = [x for n in both for x in (decimal(n[solved], 0), "█" * round(20 * n[solved] / max(n)))]
        rows.append((f"{solved} of {summary.rollouts}", *cells))
    rows.append(("all", decimal(sum(summary.before), 0), "", decimal(sum(summary.after), 0), ""))
    print_table((">solved", ">before", "", ">after", ""), rows, "rows by rollouts that solved them")
    left_out = f"{decimal(summary.left_out, 0)} of {decimal(summary.problems, 0)} problems left out"
    _print(f"{left_out}; {percent(summary.truncated)}% of the rollouts were cut at max_new_tokens")


def print_alignment(figures: Overlap) -> None:
    """The figures of `vold align` and its verdict."""
    rows = [(label, form(getattr(figures, key))) for key, label, form in ALIGNMENT]
    print_table(("figure", ">value"), rows, f"{figures.student} against {figures.teacher}")
    _print(f": {figures.words}", figures.verdict)


def print_self_check(figures: SelfCheck) -> None:
    """The figures of `vold align RECIPE align.self_check=true`."""
    kl = f"KL {figures.kl:.1e} nats per token over {decimal(figures.tokens, 0)} tokens (at most {figures.limit:g})"
    ratio = f"|log ratio| {figures.mean:.1e} on average, {figures.largest:.1e} at most"
    _print(f": {kl}; {ratio}", "teacher == student")


def _print(text: str, bold: str = "") -> None:
    """A line that is no markup, whatever a model or a file put into it."""
    console.print(Text.assemble((clean(bold), "bold"), clean(text)))


def _interval(figures: Json) -> tuple[str, str, str]:
    """A paired difference in points with its interval, and its p, alone and corrected for the number of comparisons."""
    value, low, high = (percent(figures.get(k), sign=True) for k in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]", p_value(figures.get("p_value")), p_value(figures.get("corrected_p"))
