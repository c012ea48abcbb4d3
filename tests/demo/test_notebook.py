"""docs/vold.ipynb runs from its first cell to its last, in a real kernel and an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "vold.ipynb"
NEEDS = ("nbclient", "ipykernel", "pandas", "matplotlib")


def code_cells(file: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]


def results(cell: dict[str, Any]) -> dict[str, str]:
    """What a cell shows behind its text, by type."""
    return {kind: "".join(data) for output in cell["outputs"] for kind, data in output.get("data", {}).items()}


def test_it_is_one_screen_and_is_stored_without_outputs() -> None:
    cells = code_cells(NOTEBOOK)
    assert sum(len(cell["source"]) for cell in cells) <= 40
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.skipif(any(find_spec(name) is None for name in NEEDS), reason=f"needs {', '.join(NEEDS)}")
def test_every_cell_runs_in_an_empty_folder(tmp_path: Path) -> None:
    copy = tmp_path / NOTEBOOK.name
    shutil.copyfile(NOTEBOOK, copy)
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", str(copy)]
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # as in a notebook of one's own
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = code_cells(copy)
    assert [cell["execution_count"] for cell in cells] == [1, 2, 3, 4, 5]
    evaluated, drawn, read, _, rewarded = map(results, cells)
    assert all(f"'{model}'" in evaluated["text/plain"] for model in ("base", "sft", "vold"))
    assert drawn["image/png"].startswith("iVBORw0KGgo")  # PNG
    assert all(column in read["text/html"] for column in ("prompt", "response", "reference", "gap"))
    assert all(column in rewarded["text/plain"] for column in ("step", "reward", "exact", "brief"))
    assert (tmp_path / "runs" / "notebook-brief" / "distill" / "final").is_dir()
