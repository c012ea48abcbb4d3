"""Whole runs on real vLLM servers. `make test-engines` has them; test_engines.py has the same on a small server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine_backends import PROBE, RealVllm, client, saved, text_model
from served import metrics, raw_recipe
from vold.engines.teachers.server import ServerTeacher
from vold.errors import TeacherError
from vold.evals.engine_check import self_check
from vold.model.policy import Policy
from vold.run.console import console
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.types import ScoreRequest

pytestmark = pytest.mark.engines


def served(server: RealVllm, patience: float = 600.0) -> dict[str, Any]:
    return {"urls": [server.url], "model": "tiny", "patience": patience}


def test_three_steps_with_a_vllm_teacher_end_like_those_with_one_in_the_process(
    vllm_teacher: RealVllm, tmp_path: Path
) -> None:
    ends = []
    for name in ("inside", "vllm"):
        raw = raw_recipe(tmp_path / name)
        if name == "vllm":
            raw["teacher"]["server"] = served(vllm_teacher)
        ends.append(Policy.load(str(distill(recipe_from(raw, where="test")))).model.state_dict())
    rows = metrics(tmp_path / "vllm")
    assert [r["step"] for r in rows] == [0, 1, 2]
    assert all(r["teacher_tokens"] > 0 for r in rows)
    for name, tensor in ends[0].items():
        assert tensor == pytest.approx(ends[1][name], abs=1e-4), name


def test_three_steps_with_teacher_and_rollouts_on_vllm(
    vllm_teacher: RealVllm, vllm_rollouts: RealVllm, tmp_path: Path
) -> None:
    raw = raw_recipe(tmp_path, optimizer={"lr": 1e-2, "warmup_steps": 1}, mismatch={"limit": 1e-6, "action": "stop"})
    # The rollout server was started with three padded rows, and takes a student that has them.
    student = saved(text_model(3, padded_rows=3), tmp_path / "padded-student")
    raw["student"]["path"] = raw["distill"]["init"] = str(student)
    raw["teacher"]["server"] = served(vllm_teacher)
    raw["distill"]["engine"] = served(vllm_rollouts)
    distill(recipe_from(raw, where="test"))
    rows = metrics(tmp_path)
    assert len(rows) == 3
    assert all(r["mismatch"] < 1e-4 for r in rows)


def test_the_student_agrees_with_itself_on_vllm(vllm_teacher: RealVllm, tmp_path: Path) -> None:
    """The server holds `text_model(1)`, so that is the student here."""
    raw = raw_recipe(tmp_path)
    raw["student"]["path"] = raw["distill"]["init"] = str(vllm_teacher.model)
    raw["align"]["self_check"] = True
    raw["teacher"]["server"] = served(vllm_teacher)
    figures = self_check(recipe_from(raw, where="test"))
    assert figures.tokens > 100
    assert 0 <= figures.kl < 1e-9


def test_vllm_on_a_cpu_says_what_it_needs_for_candidates(vllm_teacher: RealVllm) -> None:
    teacher = ServerTeacher(client(vllm_teacher.url), PROBE)
    with pytest.raises(TeacherError, match="scale-out") as caught:
        teacher.score([ScoreRequest((20, 21), (30, 31), candidate_ids=((1, 2), (3, 4)))])
    assert "engines.md" in str(caught.value)


def test_a_run_outlives_its_vllm_teacher(
    vllm_teacher: RealVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server and its workers are killed after the first step and started again when the run says that it waits."""
    whole, broken = raw_recipe(tmp_path / "whole"), raw_recipe(tmp_path / "broken")
    for raw in (whole, broken):
        raw["teacher"]["server"] = served(vllm_teacher)
    expected = Policy.load(str(distill(recipe_from(whole, where="test")))).model.state_dict()
    said: list[str] = []

    def report(words: str) -> None:
        if words.startswith("distill: 1/3"):
            vllm_teacher.kill()
        elif "waiting" in words:
            said.append(words)
            vllm_teacher.start()

    monkeypatch.setattr(console, "print", report)
    got = Policy.load(str(distill(recipe_from(broken, where="test")))).model.state_dict()
    assert len(said) == 1
    for name, tensor in expected.items():
        assert tensor == pytest.approx(got[name], abs=1e-4), name
