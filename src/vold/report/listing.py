"""`vold list`: the runs of a folder, with how each stands and what it has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from vold.errors import DataError, VoldError
from vold.report.evaluation import evaluation
from vold.report.headline import gains
from vold.report.standing import EARLY, asked_of, metrics_of, one, standing
from vold.report.tables import print_table
from vold.report.text import short
from vold.run.state import failure, runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class ListedRun:
    """A run in a list: `state`, the stage and step it is at after those that ended early, and in a sentence what it has
    come to, or failed with."""

    name: str
    state: str
    step: str
    headline: str
    address: str


def list_runs(folder: Path) -> list[ListedRun]:
    """Print the runs of a folder. Returns them.

    Raises:
        DataError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), fix="give the folder that holds your runs")
    found = listed_runs(runs_in(folder))
    if not found:
        raise DataError("there is no run in this folder", where=str(folder), fix="give the folder that holds your runs")
    print_table(("run", "state", "step", "headline"), [(r.name, r.state, r.step, r.headline) for r in found])
    return found


def listed_runs(runs: Mapping[str, Path]) -> list[ListedRun]:
    """Runs by name as they are listed. One whose files are damaged says so."""
    out = []
    for name, run in runs.items():
        try:
            out.append(_listed(name, run))
        except VoldError as error:
            out.append(ListedRun(name, "damaged", "", short(f"{error.what}: {error.where}"), quote(name) + "/"))
    return out


def _listed(name: str, run: Path) -> ListedRun:
    now = standing(run, metrics_of(run), asked_of(run))
    said = [*gains(evaluation(one(run / "eval" / "results.json"), {}, 0)), *now.trained]
    behind = [s for s in now.stages if s.state != "not run" and s.detail]
    told = [s for s in behind if s is behind[-1] or s.state == EARLY]
    step = "; ".join(f"{s.name}: {f'{EARLY}, ' * (s.state == EARLY)}{s.detail}" for s in told)
    if now.state == "failed" and (why := failure(run)):
        said = [short(why)]
    return ListedRun(name, now.state, step, said[0] if said else "", quote(name) + "/")
