"""Published figures as data, shown beside ours only where split, protocol and metric are the same."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml

from vold.run.results import Published


@functools.cache
def published() -> tuple[Published, ...]:
    """Every figure of published.yaml."""
    content = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    out = []
    for table in content:
        for model, figures in table["models"].items():
            for column, figure in figures.items():
                benchmark, split, metric = table["columns"][column]
                value, *more = figure if isinstance(figure, list) else [figure]
                note = "; ".join([*more, table["note"]])
                out.append(
                    Published(model, benchmark, split, table["protocol"], metric, float(value), table["source"], note)
                )
    return tuple(out)


def matching(benchmark: str, split: str, protocol: str, metric: str = "accuracy") -> list[Published]:
    """Figures of the same benchmark, split, protocol and metric; any other would be another test.

    They are of the whole split: beside a run with a `limit` they say nothing.
    """
    wanted = (benchmark, split, protocol, metric)
    return [p for p in published() if (p.benchmark, p.split, p.protocol, p.metric) == wanted]
