"""Published figures, and in what ours are of another test: only where they are not do the two stand side by side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vold.data.benchmarks.benchmark import DECODING
from vold.data.benchmarks.registry import benchmarks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.data.benchmarks.benchmark import Benchmark
    from vold.data.benchmarks.registry import Loaded
    from vold.run.results import Figures, Published, SetInfo


def published() -> tuple[Published, ...]:
    """Every figure that the benchmarks' files hold."""
    return tuple(figure for benchmark in benchmarks().values() for figure in benchmark.published)


def matching(benchmark: str, split: str, protocol: str, metric: str = "accuracy") -> list[Published]:
    """Figures of the same benchmark, split, protocol and metric; any other would be another test."""
    wanted = (benchmark, split, protocol, metric)
    return [p for p in published() if (p.benchmark, p.split, p.protocol, p.metric) == wanted]


def left_out(official_n: int, loaded: Loaded, limit: int | None, bad_golds: int) -> dict[str, int]:
    """Why fewer items are asked than the published split has: how many, by reason. Their sum is what is missing."""
    missing = max(0, official_n - len(loaded.items))
    bad_rows = min(missing, len(loaded.bad) - loaded.doubled)
    reasons = {
        "beyond the limit" if loaded.rows == limit else "not in the data": missing - bad_rows,
        "unusable": bad_rows,
        "with a gold that cannot be marked": bad_golds,
    }
    return {reason: count for reason, count in reasons.items() if count}


def share_of_items(n: int, official_n: int, left_out: Mapping[str, int]) -> str:
    """How many items there are of the published split, and why no more, in words."""
    why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    return f"{n:,} of {official_n:,} items{f' ({why})' if why else ''}"


def official_n(protocol: Mapping[str, Any]) -> int | None:
    """How many items the split of a stored protocol has as published; None for a task set."""
    benchmark = _benchmark(protocol)
    return None if benchmark is None else benchmark.size.get(str(protocol.get("split")))


def differs(protocol: Mapping[str, Any], n: int, left_out: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """In what a figure over `n` items under a stored protocol is of another test than the published ones, in words.

    Compared are the split, the items, the answers to each of them, tools and, where published figures have the
    protocol, the decoding. Nothing is compared for a task set.

    Example:
        >>> common = {"name": "rule", "benchmark": "mathvista", "split": "testmini", "samples": 1, "tool": "none"}
        >>> differs(common, 1000), differs(common, 988, {"beyond the limit": 12})
        ((), ('988 of 1,000 items (12 beyond the limit)',))
    """
    benchmark, official = _benchmark(protocol), official_n(protocol)
    if benchmark is None or official is None:
        return ()
    out = []
    if protocol["split"] != benchmark.split:
        out.append(f"split {protocol['split']}; published figures are of {benchmark.split}")
    if n > official:
        out.append(f"{n:,} items; the published split has {official:,}")
    elif n != official - benchmark.empty:
        out.append(share_of_items(n, official, left_out or {}))
    if protocol.get("samples", 1) != 1:
        out.append(f"{protocol['samples']} answers to each item; published figures are of one")
    if protocol.get("tool", "none") != "none":
        out.append("the model may call a tool")
    return (*out, *_decoding(protocol))


def _decoding(protocol: Mapping[str, Any]) -> list[str]:
    tokens, temperature = DECODING.get(str(protocol.get("name")), (None, math.inf))
    out, limit = [], protocol.get("max_new_tokens", tokens)
    if tokens is not None and limit != tokens:
        out.append(f"up to {limit:,} new tokens; published figures have up to {tokens:,}")
    if protocol.get("temperature", 0.0) > temperature:
        out.append(f"temperature {protocol['temperature']:g}; published figures are greedy")
    return out


def _benchmark(protocol: Mapping[str, Any]) -> Benchmark | None:
    return None if protocol.get("name") == "tasks" else benchmarks().get(str(protocol.get("benchmark")))


def beside(about: SetInfo, figures: Sequence[Figures]) -> tuple[Published, ...]:
    """Published figures to show beside these, those of the headline score first; derived scores with their name. None
    where one of these is of another test."""
    benchmark = _benchmark(about.protocol)
    if benchmark is None or any(f.differs for f in figures):
        return ()
    out = []
    for metric in dict.fromkeys([*benchmark.headline, *(figure.metric for figure in benchmark.published)]):
        for figure in matching(benchmark.name, str(about.split), str(about.protocol["name"]), metric):
            label = "" if metric == "accuracy" else f"{metric.replace('_', ' ')}; "
            out.append(replace(figure, note=label + figure.note))
    return tuple(out)
