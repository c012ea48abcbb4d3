"""`vold demo` from end to end, with GRPO beside it, as short as can be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launched import gone
from studies import begin_as_copies
from vold.demo.pipeline import DemoSummary, demo
from vold.errors import DataError
from vold.evals.compare import compare_runs
from vold.report.listing import list_runs
from vold.run.answers import ModelStamp
from vold.run.files import write_json
from vold.run.view import Run

SHORT = (
    "tasks.cold_start.size=8", "tasks.overlap.size=4", "tasks.train.size=40", "tasks.image.size=6", "tasks.text.size=6",
    "sft.steps=2", "sft.batch_size=4", "distill.steps=2", "distill.prompts_per_step=2", "distill.rollouts=2",
)  # fmt: skip

KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from vold.demo import pipeline

pipeline._grpo = lambda home, overrides: signal.pause()  # it would train for long; the process begun imports this too
if __name__ == "__main__":
    with pipeline._grpo_meanwhile(Path(sys.argv[1]), []):
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_grpo_runs_beside_it_from_the_same_start_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_as_copies(monkeypatch)
    home = tmp_path / "demo"
    words = [f"run.dir={home}", *SHORT]
    summary = demo(words)
    assert list(summary.stages) == ["base", "sft", "grpo", "vold"]
    assert {(c.model, c.against) for c in summary.comparisons} >= {("vold", "grpo"), ("vold", "base"), ("grpo", "sft")}
    other, own = Run(home / "grpo").recipe.distill, Run(home).recipe.distill
    assert other is not None and own is not None
    assert other.init == str(home / "sft" / "final") and not other.objective.uses_teacher
    same = {"steps", "prompts_per_step", "rollouts", "sampling", "optimizer", "tasks"}
    assert other.model_dump(include=same) == own.model_dump(include=same)
    first = Run(home / "grpo").metrics("distill")[0]
    assert first.reward == Run(home).metrics("distill")[0].reward, "both begin with the same rollouts"
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"next: vold show {home}"
    assert all(f"{n}. {sentence}" in out for n, sentence in enumerate(summary.story, 1))
    stored = json.loads((home / "summary.json").read_text())
    assert stored["story"] == summary.story and len(summary.story) == 3
    _is_found_within_the_run(home, summary)
    stamps = {file: file.stat().st_mtime_ns for file in home.rglob("*.safetensors")}
    again = demo([*words, "eval.tasks=[image]"])
    assert {m: {"image": found["image"]} for m, found in summary.stages.items()} == again.stages
    assert stamps == {file: file.stat().st_mtime_ns for file in home.rglob("*.safetensors")}, "nothing is trained again"


def _is_found_within_the_run(home: Path, summary: DemoSummary) -> None:
    """GRPO's run is listed, and compared by the answers that the run around it holds of its very weights."""
    assert [(r.name, r.state) for r in list_runs(home.parent)] == [("demo", "finished"), ("demo/grpo", "finished")]
    assert [r.name for r in list_runs(home)] == ["demo", "demo/grpo"]
    paired = {c.set: c.difference for c in summary.comparisons if (c.model, c.against) == ("vold", "grpo")}
    assert {c.name: c.difference for c in compare_runs(home, home / "grpo")} == paired
    stamp = home / "eval" / "grpo" / "model.json"
    kept = stamp.read_text()
    write_json(stamp, ModelStamp("elsewhere", "of other weights"))
    with pytest.raises(DataError, match="no evaluation here"):
        compare_runs(home, home / "grpo")
    stamp.write_text(kept)


def test_grpo_as_the_method_has_no_other_beside_it_and_no_teacher_in_its_story(tmp_path: Path) -> None:
    summary = demo([f"run.dir={tmp_path}", *SHORT, "distill.objective.method=grpo"])
    assert list(summary.stages) == ["base", "sft", "vold"]
    assert not (tmp_path / "grpo").exists()
    own = Run(tmp_path).recipe.distill
    assert own is not None and not own.objective.uses_teacher
    assert {row.teacher_tokens for row in Run(tmp_path).metrics("distill")} == {0}
    _, stage_2 = summary.story
    assert stage_2.startswith("Stage 2, on text again, without the teacher: images ")


def test_what_trains_meanwhile_ends_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "killed.py"
    file.write_text(KILLED)
    done = subprocess.run([sys.executable, str(file), str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    gone(int(done.stdout))
