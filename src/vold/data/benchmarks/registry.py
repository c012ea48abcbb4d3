"""The benchmarks: where each lies on the hub, how its rows become items, what its headline number is."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vold.data.benchmarks import visual, written
from vold.data.benchmarks.columns import MissingColumn
from vold.data.benchmarks.item import Item
from vold.data.files.hub import hub_files, shard_patterns
from vold.data.files.read import read_rows
from vold.errors import ConfigError, DataError
from vold.run.results import BadRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from vold.data.files.read import Row


@dataclass(frozen=True)
class Benchmark:
    """A benchmark by name.

    `adapt(name, row)` makes an item of a row; `keep` says whether a row belongs (a benchmark may be a part of a data
    set); `size` is how many rows the published split has, by split; the first split is the usual one.
    """

    name: str
    title: str
    repo: str
    config: str | None
    size: dict[str, int]
    adapt: Callable[[str, Row], Item]
    keep: Callable[[Row], bool] = lambda _row: True

    @property
    def split(self) -> str:
        """The usual split."""
        return next(iter(self.size))


@dataclass(frozen=True)
class Loaded:
    """What was read. `content_hash` is over texts, options, golds and pixels: it does not depend on the container."""

    items: list[Item]
    bad: list[BadRow]
    content_hash: str
    source: str
    revision: str | None
    split: str


def _vision_only(row: Row) -> bool:
    return bool(row.values.get("problem_version") == "Vision Only")


_PRO, _VERSE, _VISION = "MMMU/MMMU_Pro", "AI4Math/MathVerse", "MathLLMs/MathVision"
_TEN, _FOUR = "standard (10 options)", "standard (4 options)"
_ALL = (
    Benchmark("mmmu_pro_standard10", "MMMU-Pro, 10 options", _PRO, _TEN, {"test": 1730}, visual.mmmu_pro),
    Benchmark("mmmu_pro_standard4", "MMMU-Pro, 4 options", _PRO, _FOUR, {"test": 1730}, visual.mmmu_pro),
    Benchmark("mmmu_pro_vision", "MMMU-Pro, vision", _PRO, "vision", {"test": 1730}, visual.mmmu_pro_vision),
    Benchmark("mathvision", "MATH-Vision", _VISION, None, {"test": 3040, "testmini": 304}, visual.mathvision),
    Benchmark("mathvista", "MathVista", "AI4Math/MathVista", None, {"testmini": 1000}, visual.mathvista),
    Benchmark("logicvista", "LogicVista", "lscpku/LogicVista", None, {"test": 448}, visual.logicvista),
    Benchmark("mmmu", "MMMU", "lmms-lab/MMMU", None, {"validation": 900, "dev": 150}, visual.mmmu),
    Benchmark("mathverse", "MathVerse, five versions", _VERSE, "testmini", {"testmini": 3940}, visual.mathverse),
    Benchmark(
        "mathverse_vision_only", "MathVerse, vision only", _VERSE, "testmini", {"testmini": 788}, visual.mathverse,
        keep=_vision_only,
    ),
    Benchmark("wemath", "We-Math", "We-Math/We-Math", None, {"testmini": 1740}, visual.wemath),
    Benchmark("dynamath", "DynaMath", "DynaMath/DynaMath_Sample", None, {"sample_variant": 5010}, visual.dynamath),
    Benchmark("mmstar", "MMStar", "Lin-Chen/MMStar", "val", {"val": 1500}, visual.mmstar),
    Benchmark("math500", "MATH-500", "HuggingFaceH4/MATH-500", None, {"test": 500}, written.math500),
    Benchmark("gsm8k", "GSM8K", "openai/gsm8k", "main", {"test": 1319}, written.gsm8k),
    Benchmark("aime2024", "AIME 2024", "Maxwell-Jia/AIME_2024", None, {"train": 30}, written.aime),
    Benchmark("aime2025", "AIME 2025", "math-ai/aime25", None, {"test": 30}, written.aime),
)  # fmt: skip
BENCHMARKS: dict[str, Benchmark] = {b.name: b for b in _ALL}
"""Every benchmark by its name in a recipe."""


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: there is none, with the nearest name.
    """
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), BENCHMARKS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            "unknown benchmark", where="eval.benchmarks", got=repr(name), fix=f"{hint}known: {', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name]


def load(
    name: str,
    *,
    path: Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Loaded:
    """Read a benchmark from a local path or the hub. Rows that cannot be used are listed, not fatal.

    Raises:
        ConfigError: an unknown benchmark, or a split it does not have.
        DataError: nothing there, a wrong layout, or not a single usable row.
    """
    benchmark = get_benchmark(name)
    split = split or benchmark.split
    if split not in benchmark.size:
        raise ConfigError(
            f"{benchmark.title} has no such split", where=f"eval.benchmarks.{name}.split", got=split,
            fix=f"one of {', '.join(benchmark.size)}",
        )  # fmt: skip
    source, commit = path or f"hub:{benchmark.repo}", None
    patterns = shard_patterns(benchmark.config, split)
    if path is None:
        folder, commit = hub_files(benchmark.repo, patterns, revision=revision)
    else:
        folder = path
    items: list[Item] = []
    bad: list[BadRow] = []
    seen: set[str] = set()
    for row in read_rows(folder, split=split, patterns=patterns):
        if limit is not None and len(items) + len(bad) >= limit:
            break
        if not benchmark.keep(row):
            continue
        try:
            item = benchmark.adapt(name, row)
            if item.id in seen:
                raise DataError("another row has this id already", got=item.id)
            if not item.question and not item.images:
                raise DataError("there is neither a question nor a picture")
        except MissingColumn:
            raise
        except DataError as error:
            bad.append(BadRow(row.where, f"{error.what}{f': {error.got}' if error.got else ''}"))
            continue
        seen.add(item.id)
        items.append(item)
    if not items:
        raise DataError(
            "not a single row of this benchmark can be used",
            where=str(source),
            got=bad[0].why if bad else "no rows",
            fix="is this the right benchmark and file?",
        )
    return Loaded(items, bad, content_hash(items), str(source), commit, split)


def content_hash(items: list[Item]) -> str:
    """SHA-256 over everything that is asked and marked, in order."""
    digest = hashlib.sha256()
    for item in items:
        shown = [(i.size, hashlib.sha256(i.tobytes()).hexdigest()) for i in item.images]
        parts = [item.id, item.question, item.options, item.answer, item.form, item.precision, item.unit, item.query]
        digest.update(json.dumps([*parts, shown]).encode())
    return digest.hexdigest()
