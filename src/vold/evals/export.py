"""Results for other programs: every score as a row of CSV, and the files of scores that VLMEvalKit writes.

Both are made of what is stored, in the order of results.json, so equal results give equal bytes.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.errors import clean
from vold.evals.metrics import by_item
from vold.evals.score_files import file_of, table
from vold.run.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vold.run.answers import Answer
    from vold.run.results import Figures, Results

COLUMNS = ("model", "benchmark", "split", "metric", "value", "stderr", "n", "protocol_hash")
_FORMULA = ("=", "+", "-", "@")
Cell = str | int | float | None


def write_exports(directory: Path, results: Results, rows: Mapping[str, Mapping[str, Sequence[Answer]]]) -> None:
    """Write `results.csv`, and `vlmevalkit/MODEL/` with the files of scores that VLMEvalKit writes of a benchmark.

    `rows` are the answers by model and set. A set under a name of its own has its files in `vlmevalkit/SET/MODEL/`.
    Files of an earlier evaluation go.
    """
    write_text(directory / "results.csv", _csv((COLUMNS, *score_rows(results))))
    home = directory / "vlmevalkit"
    written = set()
    for model, by_set in rows.items():
        for key, answers in by_set.items():
            about = results.sets[key]
            known = benchmarks().get(about.benchmark or "")
            if known is None or known.score_file is None or about.split not in known.score_file.name:
                continue
            folder = home / ("" if key == known.name else key) / model
            file = folder / file_of(known.score_file, model, about)
            cells = table(known, known.score_file, str(about.split), by_item(answers))
            write_text(file, _csv(cells, quoted=True))
            written.add(file)
    for old in {*home.rglob("*.csv")} - written:
        old.unlink()


def score_rows(results: Results) -> Iterator[tuple[Cell, ...]]:
    """A row of `COLUMNS` for each score, as it stands in results.json: models, sets and scores in its order.

    What is read first comes first, then accuracy, other scores, shares of answers, and the accuracy of parts as
    `accuracy[TAG=VALUE]`. `stderr` and `n` (items, or clusters for a derived score) are empty where there are none.
    """
    for model, by_set in results.stages.items():
        if results.mmmu_pro_overall:
            overall = results.mmmu_pro_overall[model]
            yield model, "mmmu_pro", "test", "overall", overall.value, overall.stderr, None, None
        for key, figures in by_set.items():
            about = results.sets[key]
            first = [h.score for h in results.headlines if (h.set, h.model) == (key, model)]
            scores = _scores(figures)
            for metric in dict.fromkeys([*first, *scores]):
                value, stderr, n = scores[metric]
                digest = str(about.protocol["hash"])
                yield model, about.benchmark or key, about.split, metric, value, stderr, n, digest


def _scores(f: Figures) -> dict[str, tuple[float, float | None, int | None]]:
    """Every score of a model on a set by name: value, standard error and number."""
    out: dict[str, tuple[float, float | None, int | None]] = {"accuracy": (f.accuracy, f.stderr, f.n)}
    out |= {name: (d.value, d.stderr, d.n) for name, d in f.derived.items()}
    out |= {f"pass@{k}": (v, None, f.n) for k, v in (f.pass_at or {}).items()}
    if f.maj_at_k is not None:
        out[f"maj@{f.k}"] = f.maj_at_k, None, f.n
    if f.as_vlmevalkit is not None:
        peers = {"accuracy": f.as_vlmevalkit.accuracy, **f.as_vlmevalkit.derived}
        counts = {name: n for name, (_, _, n) in out.items()}  # a rate of nothing is none of ours, and 0 there
        out |= {f"{name}_as_vlmevalkit": (v, None, counts.get(name)) for name, v in peers.items()}
    answers = sum(f.outcomes.values())
    out |= {name: (count / answers, None, answers) for name, count in f.outcomes.items() if name != "right"}
    for tag, parts in f.by.items():
        out |= {f"accuracy[{tag}={value}]": (p.accuracy, p.stderr, p.n) for value, p in parts.items()}
    return out


def _csv(rows: Iterable[Sequence[Cell]], *, quoted: bool = False) -> str:
    """Rows as text, all cells in quotes or only those that need them. A number is written so that reading it gives the
    same number again, and no text is a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerows([plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return buffer.getvalue()


def plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula: it gets an apostrophe in front.

    Example:
        >>> plain("=1+2"), plain("level 5")
        ("'=1+2", 'level 5')
    """
    text = clean(text)
    begins = unicodedata.normalize("NFKC", text).lstrip()
    return f"'{text}" if begins.startswith(_FORMULA) else text
