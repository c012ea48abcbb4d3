"""A text teacher and a teacher that sees, in one run: each is shown what it can read, and scores its own tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import tiny
from stored import stored_rows
from vold.data.sources import open_tasks
from vold.engines.teachers.cached import CachedTeacher
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.teachers import open_teachers
from vold.run.recipe import Recipe, recipe_from
from vold.training.distill import distill
from vold.types import ScoreRequest


def recipe(home: Path, **image_teacher: Any) -> Recipe:
    """Half text, half pictures; the tag `set` sends pictures to a vision-language teacher."""
    raw = tiny.recipe_dict(home)
    tiny.student(seed=7).save(home / "seeing")
    raw["teacher"] = {
        "path": str(home / "teacher"),
        "route_by": "set",
        "routes": {"image": {"path": str(home / "seeing"), **image_teacher}},
    }
    digits = {"kind": "digits", "split": "train", "size": 6}
    forms = ("text", "image")
    raw["tasks"] |= {f"train_{form}": digits | {"form": form, "seed": seed} for seed, form in enumerate(forms)}
    raw["tasks"]["both"] = {"kind": "mixture", "sources": {form: f"train_{form}" for form in forms}}
    raw["distill"] |= {
        "tasks": "both",
        "prompts_per_step": 4,
        "steps": 2,
        "keep_rollouts_every": 1,
        "init": str(home / "student"),
    }
    return recipe_from(raw, where="test")


def test_each_teacher_scores_its_own_modality_with_what_it_can_read(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    distill(made)
    assert made.distill is not None
    tasks = {t.id: t for t in open_tasks(made.tasks, "both")}
    blind, seeing = tiny.teacher(), tiny.student(seed=7)
    rows = stored_rows(tmp_path / "run" / "distill" / "rollouts" / "step-000000.safetensors")
    kinds = set()
    for row in rows:
        task = tasks[row["task_id"]]
        kinds.add(task.tags["set"])
        if row["teacher_logp"] is None:
            continue
        teacher = seeing if task.tags["set"] == "image" else blind
        messages = task.messages if teacher is seeing else task.teacher_messages
        assert messages is not None
        prompt = teacher.chat.prompt(messages)
        ids = torch.tensor([[*prompt.ids, *row["ids"]]])
        positions = teacher.positions(ids, torch.ones_like(ids), prompt.vision)
        with torch.no_grad():
            logits = teacher.model(
                input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions, **prompt.vision
            ).logits[0, len(prompt.ids) - 1 : -1]
        logits[:, teacher.banned.tolist()] = -torch.inf
        logp = logits.float().log_softmax(-1).gather(-1, ids[0, len(prompt.ids) :, None])[:, 0]
        torch.testing.assert_close(torch.tensor(row["teacher_logp"]), logp, rtol=0, atol=1e-4)
    assert kinds == {"text", "image"}


def test_the_same_question_about_two_pictures_is_two_requests(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert made.distill is not None
    student = tiny.student()
    teachers = open_teachers(made, student)
    (one, two) = [t for t in open_tasks(made.tasks, "both") if t.tags["set"] == "image"][:2]
    first = teachers.prompt(one)
    second = teachers.prompt(two)
    assert first is not None and second is not None and first.vision and second.vision
    cache = CachedTeacher(InProcessTeacher(tiny.student(7), temperature=1.0, token_budget=512), tmp_path / "c", "x")
    response = tuple(student.chat.tokens("3 5"))
    asked = [ScoreRequest(first.ids, response, vision=p.vision) for p in (first, second)]
    got = cache.score(asked)
    assert (cache.hits, cache.misses) == (0, 2)
    assert got[0].logp.tolist() != got[1].logp.tolist()
    assert cache.score(asked) == got
    assert cache.hits == 2


def test_a_text_only_teacher_is_never_handed_a_picture(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    teachers = open_teachers(recipe_from(raw, where="test"), tiny.student())
    pictures = open_tasks(recipe(tmp_path).tasks, "image")
    for task in pictures:
        ask = teachers.prompt(task)
        assert task.messages[0].images and ask is not None and not ask.vision
