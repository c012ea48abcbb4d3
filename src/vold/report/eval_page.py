"""The page of an evaluation: numbers with their doubts, the data's faults, the protocols, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vold.report.evaluation import evaluation
from vold.report.text import Json, part, tidy, words
from vold.report.write import write_page
from vold.run.records import to_json

if TYPE_CHECKING:
    from vold.report.answers import Samples
    from vold.run.results import Results

LISTED = 100
"""Bad rows, and as many bad golds, that are listed of a set; all are counted."""


def write_results(file: Path, results: Results | Json, samples: Samples, *, per_set: int = 60) -> Path:
    """Write the page of an evaluation in the place of an older one and return its path.

    Args:
        file: the page.
        results: what `vold eval` writes. Accuracies and differences are shares of 1; published values are in percent.
        samples: model -> set -> stored answers, as in `eval/MODEL/SET.jsonl`.
        per_set: questions shown of each set, chosen by `vold.report.answers.choose`.
    """
    return write_page(Path(file), "eval_page.html.j2", content(results, samples, per_set))


def content(results: Results | Json, samples: Samples, per_set: int) -> Json:
    """Everything the template shows."""
    run = part(tidy(to_json(results)), "run")
    about = {k: v for k, v in run.items() if k not in ("name", "models", "versions")}
    about |= part(run, "models")
    if versions := part(run, "versions"):
        about["versions"] = ", ".join(f"{k} {words(v)}" for k, v in versions.items())
    return {
        "name": words(run.get("name") or "Evaluation"),
        "about": about,
        "evaluation": evaluation(results, samples, per_set),
        "listed": LISTED,
    }
