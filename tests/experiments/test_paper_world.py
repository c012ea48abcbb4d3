"""What the studies of the paper's tables add to the demo world."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import sizes
from experiments.read_pictures import Spec
from vold.data.worlds.digits import DigitTasks
from vold.graders.reading import read_right
from vold.model.policy import Policy
from vold.run.files import write_json
from vold.run.summaries import TracesSummary


def test_a_picture_is_to_be_read_and_nothing_else() -> None:
    tasks, asked = DigitTasks("test", "image", 3, 8), Spec(kind="reading", split="test", size=3, seed=8)
    one, same = asked.open({}, references=True)[1], tasks[1]
    digits = tasks.problems[1].digit_words
    assert one.messages[0].text == "digits <image> . read ?"
    assert one.messages[0].images[0].tobytes() == same.messages[0].images[0].tobytes()
    assert one.teacher_messages is not None and one.teacher_messages[0].text == f"digits {digits} . read ?"
    assert read_right(one.shows, f"digits {digits}") is True
    assert read_right(one.shows, "digits 1") is False


def test_traces_say_how_right_their_teacher_is(tmp_path: Path) -> None:
    stage = tmp_path / "sft"
    assert sizes.teacher_right(stage) is None
    counts = TracesSummary(answers=8, correct=6, truncated=1, kept=7, tokens_kept=70, seconds=1.0)
    write_json(tmp_path / "traces" / "summary.json", counts)
    assert sizes.teacher_right(stage) == {"accuracy": 0.75, "n": 8}


@pytest.mark.slow
def test_teachers_differ_in_size_alone(tmp_path: Path) -> None:
    for name, size in (("small", sizes.SMALL), ("large", sizes.LARGE)):
        sizes._train(tmp_path / name, size, steps=1)
    numbers = [
        sum(p.numel() for p in Policy.load(str(path), dtype="float32", device="cpu").model.parameters())
        for path in (tmp_path / "small", tmp_path / "large")
    ]
    assert numbers[0] < 100_000 < 2_000_000 < numbers[1]
