"""What a teacher is shown and the student is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from vold.engines.launch.wanted import sections
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.teachers import open_teachers
from vold.engines.teachers.told import shown
from vold.errors import ConfigError, DataError
from vold.evals.preflight import check
from vold.model.memory import inprocess_teachers
from vold.run.recipe import Recipe, Sampling, recipe_from
from vold.training.average import RunningAverage
from vold.types import Message, Prompt, ScoreRequest, Task

SAMPLING = Sampling(max_new_tokens=8)
PICTURE = Image.new("L", (16, 16))
TASK = Task("t", (Message("system", "think"), Message("user", "3 + 5 ?")), "8", "exact", response="it is 8")


def texts(messages: Any) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in messages]


def test_a_system_message_takes_the_place_of_the_tasks() -> None:
    assert texts(shown(TASK.messages, TASK, "be brief", None)) == [("system", "be brief"), ("user", "3 + 5 ?")]
    assert shown(TASK.messages, TASK, None, None) == TASK.messages
    assert shown(None, TASK, "be brief", "{reference}") is None


def test_a_hint_stands_behind_the_question() -> None:
    (_, last) = texts(shown(TASK.messages, TASK, None, "{solution}, so {reference} {and} no more"))
    assert last == ("user", "3 + 5 ?\n\nit is 8, so 8 {and} no more")


def test_a_task_without_what_the_hint_names_is_not_put_to_the_teacher() -> None:
    bare = Task("t", TASK.messages, "8", "exact")
    assert shown(bare.messages, bare, None, "{solution}") is None
    assert shown(bare.messages, bare, None, "{reference}") is not None


def test_a_blind_teacher_sees_neither_picture_nor_its_place() -> None:
    task = Task("t", (Message("user", "<image>how many?", (PICTURE,)),), "8", "exact")
    assert shown(task.messages, task, None, None, blind=True) == (Message("user", "how many?"),)


def made(home: Path, teacher: dict[str, Any], **distill: Any) -> Recipe:
    raw = tiny.recipe_dict(home)
    raw["teacher"].update(teacher)
    raw["distill"].update(distill)
    return recipe_from(raw, where="test")


def itself(home: Path, weights: str, **more: Any) -> dict[str, Any]:
    return {"path": str(home / "student"), "student": {"weights": weights}, **more}


def test_a_student_that_teaches_itself_is_not_loaded_again(tmp_path: Path) -> None:
    """It gives its own log-probs, of the prompt with the hint; nothing of it is frozen, and no other model is there."""
    recipe = made(tmp_path, itself(tmp_path, "live", hint="sum is {reference}"), objective={"method": "opd"})
    student = tiny.student()
    teachers = open_teachers(recipe, student)
    assert teachers.modules == []
    (task, *_) = tiny.opened(dict(tiny.TASKS["train"]))
    told = teachers.prompt(task)
    assert told is not None and len(told.ids) > len(student.chat.prompt(task.messages).ids)
    scorer = teachers.scorer(SAMPLING, 512, [told], tmp_path)
    request = ScoreRequest(told.ids, told.ids[-3:])
    (before,) = scorer.score([request])
    assert all(p.requires_grad for p in student.model.parameters())
    student.trainable()[-1][1].data.add_(0.5)
    (after,) = scorer.score([request])
    assert before != after, "it is asked as it is now"


def test_an_average_is_in_the_students_place_for_a_pass(tmp_path: Path) -> None:
    """Rate 1/4: after updates that add 1 and then 1, the average of w is w + 1/4 and w + 1/4 + 7/16."""
    student = tiny.student()
    named = student.trainable()
    optimizer = torch.optim.AdamW([p for _, p in named], lr=0.0, weight_decay=0.0)
    average = RunningAverage(student, optimizer, 0.25)
    begun = [p.detach().clone() for _, p in named]
    average.follow()
    for step, moved in enumerate((0.25, 0.25 + 0.4375), start=1):
        for _, p in named:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        with torch.no_grad():
            for first, (_, now) in zip(begun, named, strict=True):
                now.copy_(first + step)
        average.follow()
        own = [p.detach().clone() for _, p in named]
        with average.in_place():
            for first, (_, there) in zip(begun, named, strict=True):
                torch.testing.assert_close(there.detach(), first + moved)
        assert all(torch.equal(a, p) for a, (_, p) in zip(own, named, strict=True))


@pytest.mark.parametrize(
    ("teacher", "distill", "message"),
    [
        ({"student": {"weights": "live"}}, {}, "is the student"),
        ({"student": {"weights": "live"}, "cache": "c"}, {}, "cache"),
        ({"student": {"weights": "ema"}, "tokenizer": "align"}, {}, "tokenizer: align"),
        ({}, {"objective": {"method": "direct_opd"}}, "trained from"),
    ],
)
def test_what_a_teacher_cannot_be_is_refused(
    teacher: dict[str, Any], distill: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, teacher, **distill)


def test_an_average_gives_no_whole_distributions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no whole distributions"):
        made(tmp_path, itself(tmp_path, "ema"), objective={"method": "opsd"})
    assert made(tmp_path, itself(tmp_path, "live"), objective={"method": "opsd"}).taught_by_itself == "live"
    assert made(tmp_path, itself(tmp_path, "start"), objective={"method": "opsd"}).taught_by_itself is None
    assert made(tmp_path, itself(tmp_path, "live"), objective={"method": "grpo"}).taught_by_itself is None


def test_a_teacher_that_never_sees_says_nothing_of_a_picture(tmp_path: Path) -> None:
    recipe = made(tmp_path, {}, objective={"method": "opd", "contrast": "blind"})
    with pytest.raises(ConfigError, match="never shown a picture"):
        open_teachers(recipe, tiny.student(), contrast=True)


def test_a_base_is_loaded_where_it_is_asked_and_shown_the_same(tmp_path: Path) -> None:
    tiny.teacher(seed=7).save(tmp_path / "base")
    base = {"base": {"path": str(tmp_path / "base")}, "hint": "sum is {reference}"}
    recipe = made(tmp_path, base, objective={"method": "direct_opd"})
    student = tiny.student()
    teachers = open_teachers(recipe, student, contrast=True)
    assert open_teachers(recipe, student).contrast is None, "the other stages do not ask it"
    assert teachers.contrast is not None
    assert len(teachers.modules) == 2
    (task, *_) = tiny.opened(dict(tiny.TASKS["train"]))
    prompt = teachers.prompt(task)
    assert isinstance(prompt, Prompt)
    assert teachers.contrast.prompt(task) == prompt
    request = ScoreRequest(prompt.ids, (5, 6))
    (theirs,) = teachers.contrast.scorer(SAMPLING, 512, [prompt], tmp_path).score([request])
    (wanted,) = InProcessTeacher(tiny.teacher(seed=7), temperature=1.0, token_budget=512).score([request])
    assert theirs.logp.tolist() == pytest.approx(wanted.logp.tolist(), abs=1e-5)
    plain = made(tmp_path, base, objective={"method": "opd"})
    assert open_teachers(plain, student, contrast=True).contrast is None


def test_a_teacher_that_lacks_what_it_is_to_be_told_answers_nothing(tmp_path: Path) -> None:
    recipe = made(tmp_path, {"hint": "as in {solution}"})
    teachers = open_teachers(recipe, tiny.student())
    with pytest.raises(DataError, match="cannot be asked about this task"):
        teachers.sample(tiny.opened(dict(tiny.TASKS["train"]))[:1], SAMPLING.params(1))
    with pytest.raises(ConfigError, match="prompt and response do not fit"):
        check(made(tmp_path, {"hint": "sum " * 120 + "{reference}"}))


def test_servers_of_a_base_belong_to_stage_2_and_to_what_compares_with_it(tmp_path: Path) -> None:
    launch = {"launch": {"devices": ["cpu"], "python": sys.executable}}
    teacher = {"server": launch, "base": {"path": str(tmp_path / "base"), "server": launch}}
    shifted = made(tmp_path, teacher, objective={"method": "direct_opd"})
    assert [keys for keys, *_ in sections(shifted, "distill")] == [("teacher", "server"), ("teacher", "base", "server")]
    assert [keys for keys, *_ in sections(shifted, "align")] == [("teacher", "server")]
    plain = made(tmp_path, teacher, objective={"method": "opd"})
    assert [keys for keys, *_ in sections(plain, "distill")] == [("teacher", "server")]
    assert [m.path for m in inprocess_teachers(made(tmp_path, {"base": {"path": "b"}}))] == [str(tmp_path / "teacher")]
