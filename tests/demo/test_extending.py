"""The page on code of one's own: its files, as they stand there, run from `vold check` to the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import own_code
import tiny
from vold.cli import main
from vold.errors import DataError
from vold.run.files import read_jsonl


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the files of the page."""
    own_code.write_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    with own_code.forgotten(tmp_path):
        yield tmp_path


def test_the_page_runs_from_check_to_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward, a task source, an environment, a benchmark and a tracker of the user's own, and no file of the package
    touched."""
    assert main(["run", "extending.yaml"]) == 0
    said = capsys.readouterr().out
    assert all(f"own code  own:{name}, source " in said for name in ("Sums", "Calculator", "LARGER", "Lines"))
    run = home / "runs" / "extending"
    rows = read_jsonl(run / "distill" / "metrics.jsonl")
    assert len(rows) == 2
    for row in rows:
        right, plain = row["score_shape.right"], row["score_shape.plain"]
        assert row["reward"] == pytest.approx(0.9 * right + 0.1 * plain)
    assert "'score_shape.right'" in (run / "distill.lines").read_text()
    results = json.loads((run / "eval" / "results.json").read_text())
    assert set(results["stages"]["vold"]) == {"train", "larger"}
    assert "score_shape.plain" in results["stages"]["vold"]["train"]
    assert results["sets"]["larger"]["benchmark"] == "own:LARGER"
    assert "shape.right" in (run / "report.html").read_text()
    kept = json.loads((run / "distill" / "settings.json").read_text())
    assert {k for k in kept if k.startswith("source of ")} == {"source of own:Calculator", "source of own:Sums"}
    traces = read_jsonl(run / "traces" / "traces.jsonl")
    assert any(0 in row["action_mask"] for row in traces), "the environment has answered a turn"
    (home / "own.py").write_text((home / "own.py").read_text().replace("box.split() == [reference]", "True"))
    assert main(["distill", "extending.yaml", "distill.steps=3"]) == 2
    assert "the source of own:Calculator is not the same any more as when `distill` began" in capsys.readouterr().err


def test_a_data_file_names_no_code(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"prompt": "p", "reference": "8", "grader": "os:system"}
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="a data file cannot name code of your own"):
        tiny.opened({"kind": "jsonl", "path": str(file)})
