"""The models that ship with the project: small, safe to load, and of stock Transformers classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

import vold.demo
from vold.data.worlds.digits import DigitTasks
from vold.engines.samplers.inprocess import InProcessSampler
from vold.graders import get_grader
from vold.model.policy import Policy
from vold.types import SamplingParams

ASSETS = Path(vold.demo.__file__).parent / "assets"


def test_they_are_small_and_hold_nothing_that_could_run() -> None:
    files = [f for f in ASSETS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 20e6
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".jinja"}


def test_stock_classes_load_them() -> None:
    loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(ASSETS / "student", output_loading_info=True)
    student, told = loaded
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    teacher = AutoModelForCausalLM.from_pretrained(ASSETS / "teacher")
    assert type(teacher).__name__ == "Qwen3ForCausalLM"
    assert sum(p.numel() for p in teacher.parameters()) < sum(p.numel() for p in student.parameters()) < 2e6


def test_all_share_their_token_ids() -> None:
    tables = [AutoTokenizer.from_pretrained(ASSETS / n).get_vocab() for n in ("student", "teacher", "teacher-b")]
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(("name", "at_least"), [("teacher", 0.9), ("teacher-b", 0.9)])
def test_the_teachers_reason_well(name: str, at_least: float) -> None:
    assert accuracy(name, "text") >= at_least


def test_the_student_reads_pictures_but_reasons_poorly() -> None:
    # A quarter by chance would be little; the teachers' nine in ten would leave nothing to learn.
    assert 0.2 < accuracy("student", "image") < 0.6
    assert 0.2 < accuracy("student", "text") < 0.6


def accuracy(name: str, form: Literal["text", "image"], size: int = 200) -> float:
    policy = Policy.load(str(ASSETS / name))
    source = DigitTasks("select", form, size, 11)
    tasks = [source[i] for i in range(size)]
    with torch.inference_mode():
        answers = InProcessSampler(policy, 100).generate(
            [policy.chat.prompt(t.messages) for t in tasks], SamplingParams(40, 1.0, seed=1)
        )
    grades = [
        get_grader(t.grader)(policy.chat.text(c.ids), t.reference, finish=c.finish)
        for t, (c,) in zip(tasks, answers, strict=True)
    ]
    return sum(g.score for g in grades) / size
