"""The teacher is asked while other rollouts still generate, and the step is the one it would have been."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import loaded
import tiny
import two_processes
from engine_backends import text_model
from served import metrics, on, raw_recipe
from vllm_server import VllmServer
from vold.engines.samplers.inprocess import InProcessSampler
from vold.engines.teachers.ask import EarlyTeacher, decides_by_group, score_rollouts
from vold.errors import TeacherError
from vold.objective import Objective
from vold.run.recipe import recipe_from
from vold.training.distill import distill
from vold.training.rollout import sample
from vold.types import Prompt, Rollout, StreamingSampler

PATIENCE = 60.0
"""Seconds after which a test that waits for what never comes fails."""


def run(home: Path, teacher: VllmServer, sampler: VllmServer, *, overlap: bool) -> dict[str, torch.Tensor]:
    """Final weights. A teacher that is put to sleep between its turns is asked when all rollouts are there."""
    raw = raw_recipe(home)
    raw["teacher"]["server"] = on(teacher, sleep=not overlap)
    raw["distill"]["engine"] = on(sampler)
    return load_file(distill(recipe_from(raw, where="test")) / "model.safetensors")


def test_a_group_is_scored_before_the_next_one_is_sampled(tmp_path: Path) -> None:
    """The last prompt's rollouts are held back until the teacher has been asked: without overlap that never happens."""
    sampling, asked, in_time = threading.Event(), threading.Event(), list[bool]()
    first: list[list[int]] = []
    with VllmServer(text_model(1)) as teacher, VllmServer(text_model(4)) as sampler:

        def hold(path: str, body: dict[str, Any]) -> None:
            if path == "/v1/completions":
                first.append(body["prompt"])
                sampling.set()
                if body["prompt"] != first[0]:
                    in_time.append(asked.wait(PATIENCE))

        def note(path: str, body: dict[str, Any]) -> None:
            if path == "/v1/completions" and sampling.is_set():
                asked.set()

        sampler.hook, teacher.hook = hold, note
        early = run(tmp_path / "early", teacher, sampler, overlap=True)
    assert in_time and all(in_time)
    with VllmServer(text_model(1)) as teacher, VllmServer(text_model(4)) as sampler:
        plain = run(tmp_path / "plain", teacher, sampler, overlap=False)
    assert all(torch.equal(early[name], plain[name]) for name in plain)
    for ours, theirs in zip(metrics(tmp_path / "early"), metrics(tmp_path / "plain"), strict=True):
        same = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in (ours, theirs)]
        assert same[0] == same[1]


def test_what_a_teacher_refuses_meanwhile_stops_the_run_with_its_own_words(tmp_path: Path) -> None:
    sampling = threading.Event()
    with VllmServer(text_model(1)) as teacher, VllmServer(text_model(4)) as sampler:
        sampler.hook = lambda path, body: sampling.set() if path == "/v1/completions" else None
        teacher.hook = lambda path, body: (400, {"error": {"message": "no more"}}) if sampling.is_set() else None
        with pytest.raises(TeacherError, match="no more"):
            run(tmp_path, teacher, sampler, overlap=True)


@pytest.mark.processes
def test_rollouts_that_fail_in_one_of_two_processes_end_both(tmp_path: Path) -> None:
    """Each has a prompt on the server, and asks a teacher of its own meanwhile; the second prompt is refused."""
    prompts = itertools.count()

    def refuse(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        refused = path == "/v1/completions" and next(prompts) == 1
        return (400, {"error": {"message": "no more"}}) if refused else None

    with VllmServer(text_model(4)) as sampler:
        raw = raw_recipe(tmp_path)
        raw["distill"]["engine"] = on(sampler)
        (file := tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
        sampler.hook = refuse
        done = loaded.run(two_processes.__file__, "1x2", f"distill={file}")
    assert done.returncode == 1
    # Of the two that end the first speaks: the one that was refused, or the one that waited for it.
    assert "the rollout server refuses a request" in done.stderr or "rank 0" in done.stderr or "rank 1" in done.stderr


def sampled(home: Path) -> tuple[list[list[Rollout]], list[Prompt], Objective]:
    """Two groups of three rollouts, the first of each passed."""
    config = tiny.recipe(home).distill
    assert config is not None
    policy, tasks, groups = tiny.student(), tiny.opened(tiny.TASKS["train"])[:2], list[list[Rollout]]()
    prompts = [policy.chat.prompt(t.messages) for t in tasks]
    sampler = InProcessSampler(policy, batch_size=3)
    assert isinstance(sampler, StreamingSampler)
    made = sample(sampler, policy.chat, config, tiny.step(prompts, tasks=tasks), range(2), groups.append)
    assert [r for g in groups for r in g] == made and [len(g) for g in groups] == [3, 3]
    passed = [[dataclasses.replace(r, grade=dataclasses.replace(r.grade, score=float(not i)))
               for i, r in enumerate(g)] for g in groups]  # fmt: skip
    return passed, prompts, config.objective


def test_nothing_is_asked_twice_and_only_failed_rollouts(tmp_path: Path) -> None:
    """Of six rollouts four failed. Two of them are asked about early; the other two are left for later."""
    groups, prompts, objective = sampled(tmp_path)
    teacher = tiny.RecordingTeacher()
    with EarlyTeacher(teacher, list(prompts), objective) as early:
        early.group(groups[0])
    said = early.finish()
    assert [r.response_ids.tolist() for r in teacher.asked] == [r.completion.ids.tolist() for r in groups[0][1:]]
    flat = [r for g in groups for r in g]
    got = score_rollouts(flat, teacher, list(prompts), objective, early=said)
    assert len(teacher.asked) == 4
    assert got == score_rollouts(flat, tiny.RecordingTeacher(), list(prompts), objective)
    assert [r.teacher is None for r in got] == [True, False, False] * 2


def test_a_sampler_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    groups, prompts, objective = sampled(tmp_path)
    early = EarlyTeacher(tiny.RecordingTeacher(), list(prompts), objective)
    with pytest.raises(RuntimeError, match="lost"), early:
        early.group(groups[0])
        raise RuntimeError("lost")
    assert early._thread is not None
    early._thread.join(PATIENCE)
    assert not early._thread.is_alive()


def test_masks_of_ones_own_may_look_at_the_whole_step() -> None:
    assert decides_by_group(Objective.model_validate({"method": "vold"}))
    assert decides_by_group(Objective.model_validate({"method": "grpo"}))
    own = Objective.model_validate({"method": "vold", "teacher_loss": {"mask": "my_module:hard_ones"}})
    assert not decides_by_group(own)
