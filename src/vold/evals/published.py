"""Published figures, shown beside ours only where split, protocol and metric are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks

if TYPE_CHECKING:
    from vold.run.results import Published


def published() -> tuple[Published, ...]:
    """Every figure that the benchmarks' files hold."""
    return tuple(figure for benchmark in benchmarks().values() for figure in benchmark.published)


def matching(benchmark: str, split: str, protocol: str, metric: str = "accuracy") -> list[Published]:
    """Figures of the same benchmark, split, protocol and metric; any other would be another test.

    They are of the whole split: beside a run with a `limit` they say nothing.
    """
    wanted = (benchmark, split, protocol, metric)
    return [p for p in published() if (p.benchmark, p.split, p.protocol, p.metric) == wanted]
