"""Rows of people's own files, under the names that these have elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from vold.errors import DataError


def task(home: Path, row: dict[str, Any], **keys: Any) -> Any:
    (home / "d.jsonl").write_text(json.dumps(row) + "\n")
    return tiny.opened({"kind": "jsonl", "path": str(home / "d.jsonl"), **keys})[0]


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("row", "prompt", "reference", "response"),
    [
        ({"question": "2 + 3?", "answer": "5"}, "2 + 3?", "5", None),
        ({"problem": "2 + 3?", "ground_truth": 5}, "2 + 3?", "5", None),
        ({"prompt": "2 + 3?", "answer": 5, "response": "r"}, "2 + 3?", "5", "r"),
        ({"messages": [turn("user", "2 + 3?")], "reference": "5"}, "2 + 3?", "5", None),
        ({"messages": [turn("user", "2 + 3?"), turn("assistant", "r")], "answer": "5"}, "2 + 3?", "5", "r"),
    ],
)
def test_usual_names_are_read(
    row: dict[str, Any], prompt: str, reference: str, response: str | None, tmp_path: Path
) -> None:
    found = task(tmp_path, row)
    assert (found.messages[0].text, found.reference, found.response) == (prompt, reference, response)
    assert found.teacher_messages[0].text == prompt


def test_one_picture_and_parts_of_a_turn(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    parts = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    found = task(tmp_path, {"messages": [turn("user", parts)], "answer": 0, "image": "a.png"})
    assert found.messages[0].text == "<image>How many?"
    assert len(found.messages[0].images) == 1
    assert found.teacher_messages is None


def test_an_instruction_stands_behind_what_each_model_is_asked(tmp_path: Path) -> None:
    row = {"prompt": "a?", "teacher_prompt": "b?", "reference": "1"}
    found = task(tmp_path, row, instruction="In a box.")
    assert found.messages[0].text == "a?\n\nIn a box."
    assert found.teacher_messages[0].text == "b?\n\nIn a box."


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        ({"prompt": "a", "question": "b", "reference": "1"}, "another name", "keep one"),
        ({"prompt": "a", "reference": "1", "answer": "2"}, "another name", "keep one"),
        ({"prompt": "a", "reference": "1", "level": 3}, "unknown key", "put it under `tags`"),
        ({"prompt": "a", "refrence": "1"}, "unknown key", "did you mean 'reference'?"),
        ({"messages": [turn("system", "s"), turn("user", "a")], "answer": "1"}, "one question", "one `user` turn"),
        ({"messages": [turn("user", "a"), turn("assistant", "b")] * 2, "answer": "1"}, "one question", "one `user`"),
        ({"messages": "a", "answer": "1"}, "one question", "one `user` turn"),
        ({"messages": [turn("user", None)], "answer": "1"}, "no text", "give `content`"),
        ({"answer": "1"}, "Field required", "at least `prompt`"),
    ],
)
def test_what_is_no_problem_is_told_with_its_cure(row: dict[str, Any], what: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1") as caught:
        task(tmp_path, row)
    assert what in caught.value.what
    assert fix in caught.value.fix
