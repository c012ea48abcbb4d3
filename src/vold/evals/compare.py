"""Compare two stored evaluations item by item, and refuse to where they asked or marked differently."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vold.errors import ConfigError, DataError
from vold.evals.metrics import by_item
from vold.evals.protocol import differences
from vold.rundir import read_jsonl
from vold.stats import clustered_stderr, mcnemar_exact, min_detectable_difference, paired_difference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAST = ("vold", "sft", "base")


@dataclass(frozen=True)
class SetComparison:
    """Two models on one set. Differences are of a minus b, in accuracy; `detectable` is at 80% power, two-sided 5%."""

    name: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    stderr: float
    low: float
    high: float
    p_value: float
    mcnemar_p: float | None
    detectable: float
    n: int
    only_a: int
    only_b: int
    clustered: bool
    forced: tuple[str, ...] = field(default=())


def compare_answers(
    name: str, a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], forced: tuple[str, ...] = ()
) -> SetComparison:
    """Compare stored answers of two models to the same items.

    Per item the scores of all samples are averaged. The interval is the paired t interval, or, where items share a
    source, a normal one with the clustered standard error. McNemar's exact test is given for one 0/1 answer an item.

    Raises:
        DataError: fewer than two items in common.
    """
    first, second = by_item([dict(r) for r in a]), by_item([dict(r) for r in b])
    common = [i for i in first if i in second]
    if len(common) < 2:
        raise DataError("these evaluations have fewer than two items in common", where=name, got=str(len(common)))
    x = [_mean(first[i]) for i in common]
    y = [_mean(second[i]) for i in common]
    clusters = [first[i][0].get("cluster", i) for i in common]
    paired = paired_difference(x, y)
    differences_ = [p - q for p, q in zip(x, y, strict=True)]
    stderr, low, high, p_value = paired.stderr, paired.low, paired.high, paired.p_value
    shared = 1 < len(set(clusters)) < len(clusters)
    if shared:
        stderr = clustered_stderr(differences_, clusters)
        normal = NormalDist()
        half = normal.inv_cdf(0.975) * stderr
        low, high = paired.difference - half, paired.difference + half
        p_value = 2 * normal.cdf(-abs(paired.difference) / stderr) if stderr else float(paired.difference == 0)
    single = all(len(first[i]) == len(second[i]) == 1 for i in common) and {*x, *y} <= {0.0, 1.0}
    return SetComparison(
        name,
        math.fsum(x) / len(x),
        math.fsum(y) / len(y),
        paired.difference,
        stderr,
        low,
        high,
        p_value,
        mcnemar_exact(x, y) if single else None,
        min_detectable_difference(len(common), stderr * math.sqrt(len(common))),
        len(common),
        len(first) - len(common),
        len(second) - len(common),
        shared,
        forced,
    )


def compare_runs(a: Path, b: Path, *, force: bool = False) -> list[SetComparison]:
    """Compare two runs, or two models given as `RUN/eval/MODEL`, on every set that both have.

    Of a run with several models the last stage is taken (`vold`, else `sft`, else `base`).

    Raises:
        ConfigError: a protocol differs and `force` is not set; the error names every field.
        DataError: no evaluation there, or no set in common.
    """
    first, second = model_folder(a), model_folder(b)
    names = [f.name.removesuffix(".protocol.json") for f in sorted(first.glob("*.protocol.json"))]
    names = [n for n in names if (second / f"{n}.protocol.json").exists()]
    if not names:
        raise DataError("these evaluations have no set in common", where=f"{first} and {second}")
    out = []
    for name in names:
        stamps = [read_jsonl(folder / f"{name}.protocol.json")[0] for folder in (first, second)]
        changed = tuple(differences(stamps[0]["protocol"], stamps[1]["protocol"]))
        if changed and not force:
            raise ConfigError(
                f"the evaluations on {name!r} are not comparable: their protocols differ",
                where=f"{first} ({stamps[0]['hash']}) and {second} ({stamps[1]['hash']})",
                got="; ".join(changed),
                fix="evaluate both in the same way, or add force=true and say so beside the figure",
            )
        left, right = (read_jsonl(folder / f"{name}.jsonl") for folder in (first, second))
        out.append(compare_answers(name, left, right, changed))
    return out


def model_folder(path: Path) -> Path:
    """The folder that holds one model's answers.

    Raises:
        DataError: there is none.
    """
    if list(path.glob("*.protocol.json")):
        return path
    models = {f.parent.name: f.parent for f in sorted((path / "eval").glob("*/*.protocol.json"))}
    for name in (*LAST, *models):
        if name in models:
            return models[name]
    raise DataError(
        "there is no evaluation here",
        where=str(path),
        got="no SET.protocol.json",
        fix="give a run directory in which `vold eval` has run, or its RUN/eval/MODEL",
    )


def _mean(answers: Sequence[Mapping[str, Any]]) -> float:
    return math.fsum(float(r["score"]) for r in answers) / len(answers)
