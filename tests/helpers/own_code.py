"""Modules of a user's own beside a recipe: those of the page on them, and how a test leaves none behind."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from package import ROOT
from vold.data.benchmarks import registry
from vold.types import named

BLOCK = re.compile(r"^```\w+\n# ([\w.]+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""A part of a file, which its first line names."""


def write_page(home: Path) -> None:
    """Write the files that stand on docs/extending.md, part behind part."""
    for name, text in BLOCK.findall((ROOT / "docs" / "extending.md").read_text()):
        with (home / name).open("a") as file:
            file.write(text)


@contextlib.contextmanager
def forgotten(home: Path) -> Iterator[Path]:
    """Inside, modules of `home` and below may be named and loaded; behind it none is known any more."""
    before = list(sys.path)
    try:
        yield home
    finally:
        sys.path[:] = before
        named._beside.clear()
        registry._own.clear()
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(home):
                del sys.modules[name]
