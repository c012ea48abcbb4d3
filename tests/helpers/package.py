"""The modules of the package and the layers they stand on.

`LAYERS` is the picture in docs/architecture.md as data. A module may import only from layers above its own line in
the table. A name that ends in `.*` is a package with all it holds: inside it, imports are free.
A new room fails tests/test_architecture.py until it has a place.
"""

from __future__ import annotations

from pathlib import Path

# fmt: off
LAYERS: tuple[tuple[str, ...], ...] = (
    ("vold", "vold.errors",),
    ("vold.types.*",),
    ("vold.objective.*", "vold.graders.*",),
    ("vold.run.*",),
    ("vold.data.*", "vold.model.*",),
    ("vold.engines.*", "vold.report.*",),
    ("vold.evals.*",),
    ("vold.training.*",),
    ("vold.demo.*",),
    ("vold.cli.*", "vold.__main__",),
)
# fmt: on

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


EXPERIMENTS = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted((ROOT / "experiments").rglob("*.py"))
}
"""Modules beside the package. Nothing in it imports them."""

FILES = {module_name(p): p for p in sorted((SOURCE / "vold").rglob("*.py"))}
