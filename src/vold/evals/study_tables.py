"""The tables that a study writes from its results: into the README, the docs and its protocol."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vold.errors import ConfigError
from vold.evals.claims import UNDECIDED, number_of, seed_interval
from vold.evals.study_results import COLUMNS, ArmResult, ClaimFigures, StudyResults, UnitResult, is_share

MARK = "<!-- {edge}: table of {name}, written by `vold study` -->"
LOOKS = "<!-- {edge}: looks, written by `vold study` -->"


def table(results: StudyResults) -> str:
    """Arms, claims and counts as Markdown."""
    columns = COLUMNS if results.columns is None else results.columns
    lines = [f"| arm | learning rate | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for name, arm in results.arms.items():
        rate = "-" if arm.rate is None else f"{arm.rate:g}"
        cells = [cell_of(arm.seeds, on) for on in columns]
        lines.append(f"| {name} | {rate} | {' | '.join(cells)} |")
    for line in diverged(results.arms):
        lines += ["", line]
    lines += ["", "| claim | difference, points | p | corrected p | alone | verdict |", "|---" * 6 + "|"]
    for found in results.claims.values():
        p, corrected = map(_p, (found.figures.p_value, found.figures.corrected_p))
        lines.append(
            f"| {found.claim} | {_figure(found.figures)} | {p} | {corrected} | {found.alone} | {found.verdict} |"
        )
    return "\n".join(lines + _counts(results.arms))


def diverged(arms: Mapping[str, ArmResult]) -> Iterator[str]:
    """A sentence for each arm with rates at which training did not go through, which could not be chosen."""
    for name, arm in arms.items():
        if arm.diverged:
            rates = "; ".join(f"{rate}: {words}" for rate, words in arm.diverged.items())
            yield f"Rates of {name} that could not be chosen, as training did not go through: {rates}."


def _figure(f: ClaimFigures) -> str:
    """In points or percent; that of a measure which is no share in its own unit, and named `value`."""
    middle, sign = (f.mean, "") if f.difference is None else (f.difference, "+")
    if middle is None:
        return "-"
    if f.share is False:
        return "value: " + _with_interval(middle, f.low, f.high, f"{sign}.4g", 1)
    return ("" if sign else "share: ") + _with_interval(100 * middle, f.low, f.high, f"{sign}.1f", 100)


def _with_interval(middle: float, low: float | None, high: float | None, form: str, scale: float) -> str:
    """A figure, `scale` times that of its interval."""
    if low is None or high is None:
        return f"{middle:{form}}"
    return f"{middle:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def cell_of(rows: Sequence[UnitResult], on: str) -> str:
    """The mean over seeds with its interval, which equal numbers do not have."""
    name = on.partition("/")[0]
    present = [r for r in rows if name in r.measures]
    if not present:
        return "-"
    shares = is_share(present, on)
    scale, values = 100 if shares else 1, [number_of(r, on) for r in present]
    apart = len(values) > 1 and max(values) > min(values)
    low, high = seed_interval(values, shares=shares) if apart else (None, None)
    return _with_interval(scale * sum(values) / len(values), low, high, ".1f", scale)


def _counts(arms: Mapping[str, ArmResult]) -> list[str]:
    """A table for every measure that counts something, over all seeds."""
    lines = []
    for arm, found in arms.items():
        for name in [k for k, m in found.seeds[0].measures.items() if m.counts is not None]:
            pooled: Counter[str] = Counter()
            for row in found.seeds:
                pooled.update(row.measures[name].counts or {})
            keys = sorted(pooled, key=lambda k: (not _is_number(k), float(k) if _is_number(k) else 0.0, k))
            shares = [f"{100 * pooled[k] / pooled.total():.1f}" for k in keys]
            lines += ["", f"| {name} of {arm} | {' | '.join(keys)} |", "|---" * (1 + len(keys)) + "|"]
            lines += [f"| share of {pooled.total()}, % | {' | '.join(shares)} |"]
    return lines


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


def write_tables(directory: Path, results: StudyResults) -> list[Path]:
    """Replace the study's table wherever the README or the docs hold its marks; returns the files changed."""
    begin, end = (MARK.format(edge=e, name=directory.name) for e in ("begin", "end"))
    root = directory.parent.parent
    changed = []
    for file in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not file.exists():
            continue
        text = file.read_text()
        new = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _: f"{begin}\n{table(results)}\n{end}",
            text,
            flags=re.DOTALL,
        )
        if new != text:
            file.write_text(new)
            changed.append(file)
    return changed


def write_looks(directory: Path, results: StudyResults) -> list[Path]:
    """Write into the study's protocol when its claims were looked at; returns the file if it has changed.

    Raises:
        ConfigError: as `around_looks`.
    """
    file = directory / "protocol.md"
    if results.looks is None or not file.exists():
        return []
    begin, end = _edges()
    rows = ["| seeds | level | decided | then |", "|---|---|---|---|"]
    for look in results.looks:
        decided = [key for key, verdict in look.verdicts.items() if verdict != UNDECIDED]
        told = f"{len(decided)} of {len(look.verdicts)}" + (f": {', '.join(decided)}" if decided else "")
        rows.append(f"| {look.seeds} | {look.level:.2g} | {told} | {'the end' if look.ended else 'went on'} |")
    head, rest = around_looks(file)
    new = head + "\n".join((begin, *rows, end)) + rest
    if new != file.read_text():
        file.write_text(new)
        return [file]
    return []


def around_looks(file: Path) -> tuple[str, str]:
    """What stands in a protocol before the looks and behind them, which belong at its end where it has no place for
    them.

    Raises:
        ConfigError: the mark behind them is gone: nobody knows where they end.
    """
    (begin, end), text = _edges(), file.read_text()
    head, found, rest = text.partition(begin)
    if not found:
        return f"{text.rstrip()}\n\n## Looks\n\n", "\n"
    _, closed, behind = rest.partition(end)
    if not closed:
        fix = f"put the line {end} behind the table of looks, or take the line {begin} and the table away"
        raise ConfigError("the mark at the end of the looks is gone", where=str(file), fix=fix)
    return head, behind


def _edges() -> tuple[str, str]:
    return LOOKS.format(edge="begin"), LOOKS.format(edge="end")
