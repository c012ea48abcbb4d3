"""The page of an evaluation: numbers with their doubts, the data's faults, the protocols, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vold.report.evaluation import about, evaluation
from vold.report.text import Json, at, clean
from vold.report.write import write_page
from vold.run.records import to_json

if TYPE_CHECKING:
    from vold.report.answers import Samples
    from vold.run.results import Results

LISTED = 100
"""Bad rows, and as many bad golds, that are listed of a set; all are counted."""


def write_results(file: Path, results: Results | Json, samples: Samples, *, per_set: int = 60) -> Path:
    """Write the page of an evaluation and return its path.

    Args:
        file: the page; an older one is replaced.
        results: what `vold eval` writes: `run`, `sets`, `stages`, `comparisons`. Accuracies and differences are shares
            of 1; published values are in percent, as they are printed.
        samples: model -> set -> stored answers, as in `eval/MODEL/SET.jsonl`. A subset of the questions of each set is
            shown, chosen by `vold.report.answers.choose`.
        per_set: questions shown of each set.
    """
    return write_page(Path(file), "eval_page.html.j2", content(results, samples, per_set))


def content(results: Results | Json, samples: Samples, per_set: int) -> Json:
    """Everything the template shows."""
    return {
        "name": clean(at(to_json(results), "run", "name") or "Evaluation"),
        "about": about(results),
        "evaluation": evaluation(results, samples, per_set),
        "listed": LISTED,
    }
