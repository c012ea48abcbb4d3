"""The table of benchmarks, filled from the modules of this folder, and reading one."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import itertools
import json
import pkgutil
from collections import ChainMap, Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import vold.data.benchmarks
from vold.data.benchmarks.benchmark import Benchmark
from vold.data.benchmarks.columns import MissingColumn, column_options, names_option
from vold.data.benchmarks.item import Item
from vold.data.files.hub import hub_files
from vold.data.files.read import read_rows
from vold.errors import ConfigError, DataError
from vold.graders.choice import LETTERS
from vold.run.results import BadRow
from vold.types import named
from vold.types.named import is_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vold.data.files.read import Row


MOST_BAD = 0.05
"""Share of rows that may be unusable or have a gold that is no option; where there are more, it is not the benchmark.
One such row is never too many."""
TWICE = "another row has this id already"
NO_OPTION = "the gold answer is no option"


@dataclass(frozen=True)
class Loaded:
    """What was read. `content_hash` is over texts, options, golds and pixels: it does not depend on the container.
    Of `rows` read, `doubled` are among the `bad` because an item before has their id."""

    items: list[Item]
    bad: list[BadRow]
    doubled: int
    rows: int
    content_hash: str
    source: str
    revision: str | None
    split: str


_own: dict[str, Benchmark] = {}
"""Benchmarks of the user's own that a recipe has named, by that name."""


@functools.cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Every benchmark by its name in a recipe: those of `BENCHMARKS` in the modules of this folder, and those of the
    user's own that `get_benchmark` was asked for."""
    modules = pkgutil.iter_modules(vold.data.benchmarks.__path__, "vold.data.benchmarks.")
    tables = [getattr(importlib.import_module(m.name), "BENCHMARKS", ()) for m in modules]
    return ChainMap(_own, {b.name: b for table in tables for b in table})


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Only a recipe may name one of the user's own, `my_module:BENCHMARK`: it is imported.

    Raises:
        ConfigError: there is none, with the nearest name.
    """
    if is_named(name):
        return _own.setdefault(name, _loaded(name))
    known = benchmarks()
    if name not in known:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            "unknown benchmark", where="eval.benchmarks", got=repr(name), fix=f"{hint}known: {', '.join(known)}"
        )
    return known[name]


def _loaded(name: str) -> Benchmark:
    found = named.load(name)
    found = found() if callable(found) else found
    if not isinstance(found, Benchmark):
        raise ConfigError(
            "this is no benchmark",
            where=name,
            got=f"a {type(found).__name__}",
            fix="name a vold.data.benchmarks.benchmark.Benchmark, or a function without arguments that makes one",
        )
    return replace(found, name=name)


def load(
    name: str,
    *,
    path: Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Loaded:
    """Read a benchmark from a local path or the hub. A few rows that cannot be used are listed, not fatal; rows that
    name another of its splits in a column `split`, as VLMEvalKit's tables do, are passed over.

    Raises:
        ConfigError: an unknown benchmark, or a split it does not have.
        DataError: nothing there, a wrong layout, not a single usable row, or more than `MOST_BAD` that are not.
    """
    benchmark = get_benchmark(name)
    split = split or benchmark.split
    if split not in benchmark.size:
        raise ConfigError(
            f"{benchmark.title} has no such split", where=f"eval.benchmarks.{name}.split", got=split,
            fix=f"one of {', '.join(benchmark.size)}",
        )  # fmt: skip
    if path is None and not benchmark.repo:
        where, fix = f"eval.benchmarks: {name}", "give its file or folder as `path`"
        raise ConfigError("this benchmark lies in no repository", where=where, got="no path", fix=fix)
    source, commit = path or f"hub:{benchmark.repo}", None
    layouts = benchmark.files[split] if benchmark.files else ()
    if path is None:
        folder, commit = hub_files(benchmark.repo, layouts, revision=revision)
    else:
        folder = path
    others = benchmark.size.keys() - {split}
    rows = (row for row in read_rows(folder, split=split, layouts=layouts) if row.values.get("split") not in others)
    items, bad, odd = _read(benchmark, rows, limit)
    _refuse_bad([*bad, *odd], len(items) - len(odd), str(source))
    doubled = sum(b.why.startswith(TWICE) for b in bad)
    return Loaded(items, bad, doubled, len(items) + len(bad), content_hash(items), str(source), commit, split)


def _read(
    benchmark: Benchmark, rows: Iterable[Row], limit: int | None
) -> tuple[list[Item], list[BadRow], list[BadRow]]:
    """The items, the rows that are none, and those whose gold is none of the options: a few of them are dirt."""
    items: list[Item] = []
    bad: list[BadRow] = []
    odd: list[BadRow] = []
    seen: set[str] = set()
    for row in itertools.islice(filter(benchmark.keep, rows), limit):
        try:
            item = benchmark.adapt(benchmark.name, row)
            _refuse_unread(item, row)
            if not item.answer.strip():
                raise DataError("the gold answer is empty")
            if item.id in seen:
                raise DataError(TWICE, got=item.id)
            if not item.question and not item.images:
                raise DataError("there is neither a question nor a picture")
        except MissingColumn:
            raise
        except DataError as error:
            bad.append(BadRow(row.where, f"{error.what}{f': {error.got}' if error.got else ''}"))
        else:
            seen.add(item.id)
            if item.form == "choice" and not names_option(item.answer, item.options):
                odd.append(BadRow(row.where, f"{NO_OPTION}: {item.answer[:80]!r}"))
            letter = item.form != "choice" or names_option(item.answer)
            items.append(item if letter else replace(item, form="text"))
    return items, bad, odd


def _refuse_unread(item: Item, row: Row) -> None:
    """Refuse a table that has options in columns of their own where none of them are asked.

    Raises:
        MissingColumn: it is such a table.
    """
    held = column_options(row)
    if held and not item.options:
        raise MissingColumn(
            f"this table has its options in columns, and {item.benchmark} is not read from such a table",
            where=row.where,
            got=", ".join(f"{letter}: {text[:20]}" for letter, text in zip(LETTERS, held, strict=False)),
            fix="give the files of the benchmark's own repository",
        )


def _refuse_bad(bad: Sequence[BadRow], usable: int, source: str) -> None:
    rows = len(bad) + usable
    if usable and (len(bad) < 2 or len(bad) <= MOST_BAD * rows):
        return
    reasons = Counter(b.why.partition(":")[0] for b in bad).most_common(3)
    examples = [next(b for b in bad if b.why.startswith(reason)) for reason, _ in reasons]
    raise DataError(
        f"{len(bad):,} of {rows:,} rows of this benchmark cannot be used"
        if usable
        else "not a single row of this benchmark can be used",
        where=source,
        got="; ".join(f"{n:,} x {b.why} ({b.where})" for (_, n), b in zip(reasons, examples, strict=True)) or "no rows",
        fix="is this the right benchmark, version and file, with its pictures, and once?",
    )


def content_hash(items: list[Item]) -> str:
    """SHA-256 over everything that is asked and marked, in order."""
    digest = hashlib.sha256()
    for item in items:
        shown = [(i.size, hashlib.sha256(i.tobytes()).hexdigest()) for i in item.images]
        parts = [item.id, item.question, item.options, item.answer, item.form, item.precision, item.unit, item.query]
        digest.update(json.dumps([*parts, shown]).encode())
    return digest.hexdigest()
