"""Runs of a folder, and how each stands: at work, stopped, failed or finished."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vold.run import alive
from vold.run.as_run import RECIPE
from vold.run.lock import LOCK, RunLock, last_owner

if TYPE_CHECKING:
    from vold.run.lock import Owner

State = Literal["running", "stopped", "failed", "finished"]

STAGES = ("traces", "align", "balance", "sft", "distill", "eval")
DEEPEST = 4
"""Folders inside each other that are looked into for runs."""


def runs_in(folder: Path) -> dict[str, Path]:
    """The run directories in a folder by their path in it, in order. Where the folder is one itself its name stands
    before theirs. A run may hold others beside its stages, as the demo's does."""
    found, above = {}, (folder.resolve().name,) if is_run(folder) else ()
    for here, below, _ in os.walk(folder):
        place = Path(here)
        inside = place.relative_to(folder).parts
        its_own = STAGES if is_run(place) else ()
        if its_own:
            found["/".join((*above, *inside))] = place
        if len(inside) >= DEEPEST:
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in its_own)
    return found


def is_run(place: Path) -> bool:
    """Whether a directory is one of a run: it holds a recipe, and a stage or a lock."""
    inside = ((place / name).is_dir() for name in (LOCK, *STAGES))
    return (place / RECIPE).is_file() and any(inside)


def is_at_work(run: Path) -> bool:
    """Whether a process owns the run. On this machine its process is looked for; elsewhere the file that it writes at
    every heartbeat must not be old."""
    owner = last_owner(run)
    if owner is None or owner.state != "held":
        return False
    if owner.place and owner.place == alive.place():
        found = alive.seen(owner.pid)
        if found is None:
            return alive.exists(owner.pid)  # of another user, and hidden
        return found.born == owner.born and found.state not in "ZX"
    return _heard(run, owner)


def _heard(run: Path, owner: Owner) -> bool:
    newest = max((f.stat().st_mtime for f in (run / LOCK).iterdir()), default=0.0)
    return time.time() - newest < owner.every * RunLock.missed


def failure(run: Path) -> str:
    """The verb that last ended in an error, and the first line of that; empty where there is none."""
    owner = last_owner(run)
    return f"{owner.verb}: {owner.why}" if owner is not None and owner.state == "fail" and owner.why else ""


def state_of(run: Path, *, finished: bool) -> State:
    """How a run stands. `finished`: its last stage has ended; the process that ran it may still write its report."""
    owner = last_owner(run)
    ours = owner is not None and (owner.pid, owner.place) == (os.getpid(), alive.place())
    if is_at_work(run) and not (finished and ours):
        return "running"
    if finished:
        return "finished"
    return "failed" if owner is not None and owner.state == "fail" else "stopped"
