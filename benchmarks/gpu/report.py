"""What the figures of a run are of."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu.children import Figures

ROOT = Path(__file__).parents[2]


def heading(card: Figures) -> Figures:
    """What the figures are of."""
    return {
        "card": card["name"],
        "card_gib": round(card["memory"] / 2**30, 1),
        "versions": {k: card[k] for k in ("driver", "cuda", "capability") if k in card},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
    }


def commit() -> str:
    """Of the code; a bundle has it in a file."""
    noted = ROOT / "COMMIT"
    if noted.exists():
        return noted.read_text().strip()
    git = ("git", "-C", str(ROOT))
    changed = "" if said_by(*git, "status", "--porcelain", "-uno") == "" else ", with changes"
    return said_by(*git, "rev-parse", "HEAD") + changed


def said_by(*command: str) -> str:
    """The first line that a program prints; `unknown` where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0]
