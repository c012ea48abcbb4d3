"""All faults with a table at the end: `make faults`, or `make faults ARGS='damage reply --every 10'` for a part.

Exit status 1 if something was lost; each such fault is listed with the reason. `--out FILE` keeps the counts as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.table import Table

from faults.frame import Fault, Outcome, load
from vold.run.console import Bar, console

KINDS = {
    "damage": "damaged files, rows and folders",
    "refusal": "bad inputs",
    "kill": "killed, started again",
    "disk": "disk full, then room again",
    "pair": "two or more processes in one run directory",
    "reply": "servers that lie, hang and tear",
    "program": "programs that want out of the sandbox",
}
"""Modules of this package, and what each puts in."""

PROCESSES = 2


def every(kind: str) -> list[Fault]:
    """All faults of a kind."""
    found: list[Fault] = importlib.import_module(f"faults.{kind}").faults()
    return found


def injected(fault: Fault) -> Outcome:
    """Inject in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix=f"fault-{fault.kind}-", ignore_cleanup_errors=True) as home:
        try:
            return fault.inject(Path(home))
        except Exception as error:
            return Outcome("lost", f"the fault itself failed: {type(error).__name__}: {error}")


_faults: list[Fault] = []


def _injected(number: int) -> tuple[int, Outcome]:
    return number, injected(_faults[number])


def run(faults: list[Fault]) -> list[Outcome]:
    """Inject all of them, some at a time; outcomes in their order."""
    _faults[:] = faults
    outcomes: dict[int, Outcome] = {}
    context = multiprocessing.get_context("fork")  # children find loaded modules and prepared runs
    with ProcessPoolExecutor(PROCESSES, context) as pool, Bar("faults", len(faults)) as bar:
        for done in as_completed([pool.submit(_injected, number) for number in range(len(faults))]):
            number, outcome = done.result()
            outcomes[number] = outcome
            bar.advance(note=faults[number].name[:60])
    return [outcomes[i] for i in range(len(faults))]


def counts(faults: list[Fault], outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Kind by kind how many were injected, and how they ended."""
    table = {}
    for kind in dict.fromkeys(f.kind for f in faults):
        verdicts = [o.verdict for f, o in zip(faults, outcomes, strict=True) if f.kind == kind]
        table[kind] = {"injected": len(verdicts)} | {v: verdicts.count(v) for v in ("survived", "clear", "lost")}
    return table


def main() -> int:
    """Inject what the arguments name."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all of them by default")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each K-th fault of a kind")
    parser.add_argument("--out", type=Path, help="keep the counts of these kinds")
    args = parser.parse_args()
    if unknown := set(args.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    load()
    began = time.monotonic()
    faults = [f for kind in args.kinds or KINDS for f in every(kind)[:: args.every]]
    outcomes = run(faults)
    found = counts(faults, outcomes)
    seconds = round(time.monotonic() - began)
    for fault, outcome in zip(faults, outcomes, strict=True):
        if outcome.verdict == "lost":
            console.print(f"LOST {fault.kind}: {fault.name}: {outcome.note}", markup=False)
    _print(found, seconds)
    if args.out is not None:
        _keep(args.out, found, seconds)
    return int(any(row["lost"] for row in found.values()))


def _keep(file: Path, found: dict[str, dict[str, int]], seconds: int) -> None:
    """Write the counts of these kinds. Other kinds, and the time that all of them took, stay as the file has them."""
    kept = json.loads(file.read_text()) if file.exists() and set(found) != set(KINDS) else {"kinds": {}}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    kinds = {kind: row for kind in KINDS if (row := found.get(kind, kept["kinds"].get(kind)))}
    written = {"kinds": kinds, "seconds": kept.get("seconds", seconds), "on": machine}
    file.write_text(json.dumps(written, indent=2) + "\n")


def _print(found: dict[str, dict[str, int]], seconds: int) -> None:
    table = Table(title=f"faults, {seconds} s")
    table.add_column("kind")
    for column in ("injected", "survived", "clear", "lost"):
        table.add_column(column, justify="right")
    for kind, row in found.items():
        table.add_row(KINDS[kind], *(str(n) for n in row.values()))
    total = [sum(row[c] for row in found.values()) for c in ("injected", "survived", "clear", "lost")]
    table.add_section()
    table.add_row("all", *map(str, total))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
