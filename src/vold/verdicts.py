"""Claims of a study, the rule that decides each, and the tables written from the results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from vold.config import Section
from vold.stats import paired_difference, t_interval

MARK = "<!-- {edge}: table of {name}, written by `vold study` -->"


class Claim(Section):
    """A claim about two arms, decided by the 95% interval of their difference over training seeds."""

    claim: str
    """In words."""
    better: str
    """The arm the claim is about."""
    worse: str
    """The arm it is compared with."""
    measure: str
    """Task set, or `reward` for the final training reward."""
    rule: Literal["gain", "no gain"]
    """`gain`: holds if the interval lies above 0, does not hold if it lies below 0 or within +-margin.
    `no gain`: holds if the interval lies below +margin, does not hold if it lies above 0 (and not below +margin)."""
    margin: float = 0.02
    """The smallest difference that counts as a gain."""


def judge(claim: Claim, arms: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """Apply a claim's rule. The difference is taken seed by seed; an arm without training counts for every seed."""
    better, worse = (_values(arms[a]["seeds"], claim.measure, seeds) for a in (claim.better, claim.worse))
    d = paired_difference(better, worse)
    if claim.rule == "gain":
        if d.low > 0:
            verdict = "holds"
        elif d.high < 0 or (d.low > -claim.margin and d.high < claim.margin):
            verdict = "does not hold"
        else:
            verdict = "undecided"
        rule = (
            f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed: holds if the 95% interval lies above "
            f"0, does not hold if it lies below 0 or within +-{100 * claim.margin:g} points, else undecided"
        )
    else:
        verdict = "holds" if d.high < claim.margin else "does not hold" if d.low > 0 else "undecided"
        rule = (
            f"{claim.better} - {claim.worse} on {claim.measure}, paired by seed: holds if the 95% interval lies below "
            f"+{100 * claim.margin:g} points, does not hold if it lies above 0, else undecided"
        )
    figures = {"difference": d.difference, "low": d.low, "high": d.high, "p_value": d.p_value, "seeds": d.n}
    return {"claim": claim.claim, "rule": rule, "verdict": verdict, "figures": figures}


def _values(rows: list[dict[str, Any]], on: str, seeds: list[int]) -> list[float]:
    if len(rows) == 1:
        return [float(rows[0][on]["accuracy"])] * len(seeds)
    by_seed = {r["seed"]: float(r[on]["accuracy"]) for r in rows}
    return [by_seed[s] for s in seeds]


def table(results: dict[str, Any]) -> str:
    """Arms and claims as Markdown."""
    lines = ["| arm | learning rate | image, % | text, % | final training reward, % |", "|---|---|---|---|---|"]
    for name, arm in results["arms"].items():
        rate = "-" if arm["rate"] is None else f"{arm['rate']:g}"
        cells = [_cell([r[on]["accuracy"] for r in arm["seeds"] if on in r]) for on in ("image", "text", "reward")]
        lines.append(f"| {name} | {rate} | {' | '.join(cells)} |")
    lines += ["", "| claim | difference, points | verdict |", "|---|---|---|"]
    for claim in results["claims"].values():
        f = claim["figures"]
        difference = f"{100 * f['difference']:+.1f} [{100 * f['low']:+.1f}, {100 * f['high']:+.1f}]"
        lines.append(f"| {claim['claim']} | {difference} | {claim['verdict']} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = 100 * sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    low, high = t_interval([100 * v for v in values])
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def write_tables(directory: Path, results: dict[str, Any]) -> list[Path]:
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
