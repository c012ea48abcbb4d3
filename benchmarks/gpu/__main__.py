"""`python -m benchmarks.gpu`: measures what only a GPU can say, and writes benchmarks/results/gpu-CARD.json.

Every measurement runs in a child process, and the file is written after each: one that runs out of memory, crashes or
hangs loses only itself, and a run that is cut off leaves what it has measured. Nothing is fetched. A smaller card gets
fewer layers of the published models; the file says how many.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.attention import attention
from benchmarks.gpu.children import distributions, in_child
from benchmarks.gpu.demo import demo, resume
from benchmarks.gpu.heads import head, kernels
from benchmarks.gpu.offload import offload
from benchmarks.gpu.pair import ROOT, TINY, Given, Shape, host_memory, save_models, shape_for
from benchmarks.gpu.peaks import peaks
from benchmarks.gpu.report import heading, said_by
from benchmarks.gpu.sampler import sampler
from benchmarks.gpu.step import quantized, step
from benchmarks.gpu.transfer import transfer
from benchmarks.gpu.update import compiled, update
from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.gpu.children import Figures

RESULTS = ROOT / "benchmarks" / "results"
MEASUREMENTS: dict[str, Callable[[Given], Figures]] = {
    "peaks": peaks, "models": save_models, "step": step, "sampler": sampler, "update": update, "offload": offload,
    "attention": attention, "head": head, "kernels": kernels, "demo": demo, "resume": resume, "transfer": transfer,
    "quantized": quantized, "compiled": compiled,
}  # fmt: skip
"""In the order of their weight, after what others need."""
PAIR = {"step", "sampler", "update", "transfer", "quantized", "compiled"}
"""Those that read what `models` writes."""
SECONDS = {"step": 270, "models": 150}
"""What one may take at most, so that one that hangs leaves time for the rest."""
USUAL = 120
TOTAL = 590
LEAST = 5
"""Seconds under which none is begun."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[*MEASUREMENTS, []], help="all of them by default")
    parser.add_argument("--tiny", action="store_true", help="models of next to no size, on a CPU where there is no GPU")
    parser.add_argument("--out", type=Path, help="the file of figures")
    asked = parser.parse_args()
    began = time.monotonic()
    card = in_child(describe_card, USUAL)
    if "error" in card:
        raise SystemExit(f"PyTorch cannot use this card: {card['error']}")
    if card["device"] == "cpu" and not asked.tiny:
        raise SystemExit(
            "there is no GPU that PyTorch can use here\n"
            "  fix: run it where `python -c 'import torch; print(torch.cuda.is_available())'` says True;\n"
            "       `make gpu ARGS=--tiny` shows on any machine that the measurements run"
        )
    out = asked.out or RESULTS / f"{'tiny' if asked.tiny else 'gpu'}-{slug(card['name'])}.json"
    scratch = Path(tempfile.mkdtemp(prefix="vold-gpu-", dir=roomiest()))
    try:
        shape = TINY if asked.tiny else Shape(**in_child(lambda: fitting(card["memory"], scratch), USUAL))
        report = heading(card) | {"shape": shape.described(), "measurements": {}}
        wanted = {*(asked.name or MEASUREMENTS)}
        names = [n for n in MEASUREMENTS if n in wanted or (n == "models" and wanted & PAIR)]
        measure(Given(card["device"], shape, scratch), names, report, out, began)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"wrote {out}")


def measure(given: Given, names: list[str], report: Figures, out: Path, began: float) -> None:
    """Each measurement in turn; `report` is written to `out` after every one."""
    for name in names:
        left = TOTAL - (time.monotonic() - began)
        found: Figures = {"left out": "no time was left"}
        if left > LEAST:
            start = time.monotonic()
            most = left if given.shape.tiny else min(left, SECONDS.get(name, USUAL))
            found = in_child(partial(one, name, given), most)
            print(
                f"{name}: {found.get('error', found.get('left out', 'done'))}, {time.monotonic() - start:.0f} s",
                flush=True,
            )
            found["took_seconds"] = time.monotonic() - start
        report["versions"] |= found.pop("versions", {})
        report["measurements"][name] = rounded(found)
        report["seconds"] = round(time.monotonic() - began)
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_name(f"{out.name}.unfinished")
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
        unfinished.replace(out)


def one(name: str, given: Given) -> Figures:
    """A measurement, with the versions of all that it has imported."""
    console.quiet = True
    return MEASUREMENTS[name](given) | {"versions": distributions()}


def describe_card() -> Figures:
    """The device that is measured: a GPU, or the processor where there is none."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "name": "cpu", "memory": 0}
    torch.zeros(1, device="cuda")
    found = torch.cuda.get_device_properties(0)
    return {
        "device": "cuda",
        "name": found.name,
        "memory": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def fitting(memory: int, scratch: Path) -> Figures:
    """What `Shape` takes for this card. Planning asks the card how much of it is free."""
    return asdict(shape_for(memory, host_memory(), scratch))


def slug(card: str) -> str:
    """A card's name as a part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower().replace("nvidia", "")).strip("-")


def roomiest() -> str:
    """Where models are written: in memory where there is room for them."""
    shared = "/dev/shm"
    room = shutil.disk_usage(shared).free if Path(shared).is_dir() else 0
    return shared if room > 40 * 2**30 else tempfile.gettempdir()


def rounded(value: Any) -> Any:
    """Four digits of every fraction."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
