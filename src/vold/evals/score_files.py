"""Tables of scores as VLMEvalKit (e8e78f05) writes them: its columns, its scales, its names of data sets."""

from __future__ import annotations

import math
import re
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vold.data.benchmarks.benchmark import Benchmark, Items, LayoutName, ScoreFile
    from vold.run.answers import Answer
    from vold.run.results import SetInfo

Row = list[str | int | float | None]


def file_of(scores: ScoreFile, model: str, about: SetInfo) -> str:
    """The name of a model's file: VLMEvalKit's, with `rule` in it where answers were marked by that protocol."""
    judge = str(about.protocol["judge"]).partition(" (")[0].rpartition("/")[2] if scores.judged else ""
    marked = judge if about.protocol["name"] == "vlmevalkit" else str(about.protocol["name"])
    parts = (model.replace("/", "_"), scores.name[str(about.split)], marked, scores.end)
    return re.sub(r"[^\w.+-]", "_", "_".join(filter(None, parts))) + ".csv"


def table(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """The header and the rows of a benchmark's file of scores, of the answers to its items."""
    return _LAYOUTS[scores.layout](benchmark, scores, split if len(benchmark.size) > 1 else "none", items)


def _options(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """Shares: all items, then the values of each tag in turn."""
    found = _parts(scores, items)
    return [["split", *found], [split, *map(_accuracy, found.values())]]


def _counts(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """Counts and percent: a row for all items and one for each value of the tags."""
    found = _parts(scores, items)
    head: Row = [scores.head, "tot", "hit", "acc"]
    hits = {k: math.fsum(fmean([a.score for a in answers]) for answers in v.values()) for k, v in found.items()}
    rows: list[Row] = [[k, len(v), f"{hits[k]:.15g}", 100 * _accuracy(v)] for k, v in found.items()]
    return [head, *rows]


def _versions(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """Percent: a row for each version, columns for subjects and subfields."""
    version, *tags = scores.tags
    values = [(tag, value) for tag in tags for value in _by(items, tag)]
    rows: list[Row] = []
    for name, part in _by(items, version).items():
        cells = (_by(part, tag).get(value) for tag, value in values)
        rows.append([name, 100 * _accuracy(part), *(None if c is None else 100 * _accuracy(c) for c in cells)])
    return [["split", "Overall", *(value for _, value in values)], *rows]


def _settings(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """Shares: the average over variants and the worst case, of all items and of the values of each tag."""
    parts = {"Overall": items}
    for tag, name in zip(scores.tags, ("Subject", "Level"), strict=True):
        parts |= {f"{name}-{value}": part for value, part in _by(items, tag).items()}
    worst = (benchmark.cluster_scores(part).get("worst_case") for part in parts.values())
    return [
        ["Setting", *parts],
        ["Average", *map(_accuracy, parts.values())],
        ["Worst Case", *(fmean(by.values()) if by else None for by in worst)],
    ]


def _dimensions(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """We-Math's four dimensions, strictly and loosely, and accuracy by the number of steps: percent, as text."""
    by = {k: list(v.values()) for k, v in benchmark.cluster_scores(items).items()}
    row: dict[str, str] = {}
    for kind in ("strict", "loose"):
        dimensions = {
            "InsufficientKnowledge": "insufficient_knowledge",
            "InadequateGeneralization": "inadequate_generalisation",
            "CompleteMastery": f"complete_mastery_{kind}",
        }
        row[f"Score ({kind.title()})"] = _percent(by.get(f"score_{kind}", ()))
        for name, key in dimensions.items():
            row[f"{name} ({kind.title()})"] = f"{_percent(by.get(key, ()))} ({sum(by.get(key, ())):g})"
        rote, mastered = (by.get(f"{k}_{kind}", ()) for k in ("rote_memorisation", "complete_mastery"))
        right = sum(rote) + sum(mastered)
        row[f"RoteMemorization ({kind.title()})"] = f"{_percent([sum(rote) / right] if right else ())} ({sum(rote):g})"
    tops, bottoms = benchmark.ratios(items).get("one_step", ((), ()))
    row["One-step(S1)"] = _percent([sum(tops) / sum(bottoms)] if bottoms else ())
    row |= {name: _percent(by.get(key, ())) for name, key in _STEPS.items()}
    return [list(row), list(row.values())]


def _sums(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """MME's sums and subtasks, in points."""
    names = {"cognition": "reasoning"}
    found = {k: 100 * benchmark.scale.get(k, 1.0) * sum(t) / sum(b) for k, (t, b) in benchmark.ratios(items).items()}
    return [[names.get(k, k) for k in found], list(found.values())]


def _figures(benchmark: Benchmark, scores: ScoreFile, split: str, items: Items) -> list[Row]:
    """HallusionBench in percent: all items, then the values of each tag."""
    parts = _parts(scores, items)
    rows: list[Row] = []
    for name, part in parts.items():
        ratios = benchmark.ratios(part)
        rows.append([name, *(100 * sum(ratios[k][0]) / sum(ratios[k][1]) for k in ("a_acc", "f_acc", "q_acc"))])
    return [["split", "aAcc", "fAcc", "qAcc"], *rows]


_LAYOUTS: Mapping[LayoutName, Callable[[Benchmark, ScoreFile, str, Items], list[Row]]] = {
    "options": _options,
    "counts": _counts,
    "versions": _versions,
    "settings": _settings,
    "dimensions": _dimensions,
    "sums": _sums,
    "figures": _figures,
}


_STEPS = {"Two-step(S2)": "two_step", "Three-step(S3)": "three_step"}


def _parts(scores: ScoreFile, items: Items) -> dict[str, Items]:
    """All items, then those of each value of the tags in turn."""
    parts = (_by(items, tag, several=tag in scores.several) for tag in scores.tags)
    return {"Overall": items} | {value: part for by in parts for value, part in by.items()}


def _by(items: Items, tag: str, *, several: bool = False) -> dict[str, Items]:
    """The items by the value of a tag, or by each of its `several` values; values in order."""
    out: dict[str, dict[str, Sequence[Answer]]] = {}
    for name, answers in items.items():
        if tag in answers[0].tags:
            value = answers[0].tags[tag]
            for one in value.split(", ") if several else (value,):
                out.setdefault(one, {})[name] = answers
    return dict(sorted(out.items()))


def _accuracy(items: Items) -> float:
    return fmean([fmean([a.score for a in answers]) for answers in items.values()])


def _percent(shares: Sequence[float]) -> str:
    return f"{fmean(shares) if shares else math.nan:.2%}"
