"""Published figures as data, shown beside ours only where split and protocol are the same."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Published:
    """One published accuracy, in percent, and where it was read."""

    model: str
    benchmark: str
    split: str
    protocol: str
    metric: str
    value: float
    source: str
    note: str = ""


@functools.cache
def published() -> tuple[Published, ...]:
    """Every figure of published.yaml."""
    content = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    out = []
    for table in content:
        shared = {k: table[k] for k in ("source", "protocol", "note") if k in table}
        for model, figures in table["models"].items():
            for key, value in figures.items():
                benchmark, split, metric = table["columns"][key]
                out.append(
                    Published(model=model, benchmark=benchmark, split=split, metric=metric, value=value, **shared)
                )
    return tuple(out)


def matching(benchmark: str, split: str, protocol: str, metric: str = "accuracy") -> list[Published]:
    """Figures of the same benchmark, split, protocol and metric; any other would be another test."""
    wanted = (benchmark, split, protocol, metric)
    return [p for p in published() if (p.benchmark, p.split, p.protocol, p.metric) == wanted]
