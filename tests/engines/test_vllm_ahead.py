"""Rollouts ahead of the update on a real vLLM server. `make test-engines` has it; test_turns.py has a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import two_processes
from engine_backends import RealVllm, saved, text_model
from killed import weights_of
from served import metrics, raw_recipe

pytestmark = pytest.mark.engines


def test_a_run_ahead_that_was_killed_twice_ends_in_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """Killed as it begins to train on a step, while the server answers the next one; the states have rollouts in them.
    One sequence at a time and no prefix cache: then an answer does not depend on what else was asked."""
    with RealVllm(saved(text_model(4), tmp_path / "model"), tmp_path / "log") as server:
        server.start("--max-num-seqs", "1", "--no-enable-prefix-caching")
        jobs = list[str]()
        for name, ends in (("whole", [""]), ("broken", ["@2", "@4", ""])):
            more = {"ahead": 1, "steps": 6, "checkpoint_every": 1, "mismatch": {"action": "warn"}}
            raw = raw_recipe(tmp_path / name, **more)
            raw["distill"]["engine"] = {"urls": [server.url], "model": "tiny", "patience": 600.0}
            (file := tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))
            for end in ends:
                jobs += ["1x1", f"distill={file}{end}"]
        command = [sys.executable, str(Path(two_processes.__file__)), *jobs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    left = [[*json.loads(line)] for line in done.stdout.splitlines() if line.startswith("{")]
    assert left == [["step-000002"], ["step-000004"]]
    runs = tmp_path / "whole", tmp_path / "broken"
    rows = [metrics(run) for run in runs]
    assert [row["staleness"] for row in rows[1]] == [row["staleness"] for row in rows[0]]
    assert max(row["staleness"] for row in rows[0]) > 0
    assert weights_of(runs[0] / "run/distill") == weights_of(runs[1] / "run/distill")
