"""Seconds and bytes of a step on one GPU, one node and two, by arithmetic: `python benchmarks/scaling.py`.

Nothing is measured. Every figure follows from the sizes below, which flags change, and says which phase to look at
first. Memory is another question: `vold check RECIPE`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields

from vold.model.pace import Sizes, step


def table(s: Sizes) -> str:
    layouts = {"1 GPU": (1, 1), "8 GPUs, 1 node": (8, 1), "16 GPUs, 2 nodes": (16, 2)}
    found = {name: step(s, *layout) for name, layout in layouts.items()}
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for row in next(iter(found.values())):
        lines.append(f"| {row} | " + " | ".join(f"{v[row]:.3g}" for v in found.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=" ")
    print(table(Sizes(**{k: v for k, v in vars(parser.parse_args()).items() if k in asdict(Sizes())})))


if __name__ == "__main__":
    main()
