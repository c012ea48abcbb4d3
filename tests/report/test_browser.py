"""Rollouts as the page's browser takes them: rows to list, and whole ones with packed streams."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stored import Row, store_rows
from vold.report.browser import LEVELS, packed_values, step_rows, whole
from vold.report.search import SearchedStep
from vold.report.text import DASH
from vold.run.rollouts import RolloutTask, load_rollout, load_rollouts, store_rollouts
from vold.types import Completion, Grade, Rollout, TokenScores


def unpacked(stream: Any, length: int) -> list[float | None]:
    if not isinstance(stream, dict):
        return [stream] * length
    at = np.frombuffer(base64.b64decode(stream["at"]), "<u2")
    span = (stream["high"] - stream["low"]) / LEVELS
    return [None if a == LEVELS + 1 else stream["low"] + float(a) * span for a in at]


@pytest.mark.parametrize(
    "values", [[-30.0, -0.125, -0.0625], [0.0, 1.0, 0.5], [5.0, float("nan"), 5.0], [-1e-6, 0, 1e-6]]
)
def test_a_stream_is_read_back_to_one_part_in_65534(values: list[float]) -> None:
    found = unpacked(packed_values(np.asarray(values)), len(values))
    span = np.nanmax(values) - np.nanmin(values)
    for read, wanted in zip(found, values, strict=True):
        assert read is None if wanted != wanted else read == pytest.approx(wanted, abs=span / LEVELS)


def test_what_is_the_same_throughout_is_one_number_and_nothing_is_none() -> None:
    assert packed_values(np.full(9, 0.5)) == 0.5
    assert packed_values(np.full(9, np.nan)) is None
    assert packed_values(np.asarray([True, True])) == 1.0


ROWS: list[Row] = [
    {"tokens": ["a", "b", "a"], "logp": [-1, -2, -3], "teacher_logp": [-2, -2, -2], "score": 0.0, "extracted": "7",
     "note": "different", "group": 0, "task_id": "t", "prompt": "p " * 300, "advantage": [-0.5, 0.0, 0.0]},
    {"tokens": ["c"], "logp": [-1], "score": 1.0, "extracted": "8", "group": 0, "task_id": "t", "prompt": "p " * 300},
    {"tokens": ["c"], "logp": [-1], "score": 0.0, "group": 5, "task_id": "u", "finish": "length", "source": "teacher"},
]  # fmt: skip


def test_rows_of_a_step(tmp_path: Path) -> None:
    found = step_rows(load_rollouts(store_rows(tmp_path, 3, ROWS)))
    assert [row["o"] for row in found["rows"]] == ["wrong", "right", "truncated"]
    assert [row["d"] for row in found["rows"]] == [0.0, None, None]  # (1 + 0 - 1) / 3
    assert [(row["i"], row["g"], row["n"], row["s"], row["t"]) for row in found["rows"]] == [
        (0, 0, 3, 0.0, False), (1, 0, 1, 1.0, False), (2, 5, 1, 0.0, True),
    ]  # fmt: skip
    assert found["groups"].keys() == {"0", "5"}
    assert found["groups"]["5"]["task"] == "u"
    assert len(found["groups"]["0"]["prompt"]) <= 160


def test_one_whole(tmp_path: Path) -> None:
    file = store_rows(tmp_path, 3, ROWS)
    found = whole(load_rollouts(file)[0])
    place = np.frombuffer(base64.b64decode(found["t"]), "<u4")
    assert [found["texts"][p] for p in place] == ["a", "b", "a"]
    assert unpacked(found["streams"]["student"], 3) == pytest.approx([-1, -2, -3])
    assert unpacked(found["streams"]["teacher"], 3) == [-2, -2, -2]
    assert unpacked(found["streams"]["mask"], 3) == [1, 0, 0]  # only the first has an advantage
    assert found["spaced"] and (found["reference"], found["note"]) == (DASH, "different")
    assert "teacher" not in whole(load_rollouts(file)[1])["streams"]


def test_one_by_its_place_is_the_one_of_the_whole_file(tmp_path: Path) -> None:
    file = store_rows(tmp_path, 3, ROWS)
    assert [load_rollout(file, i) for i in range(3)] == load_rollouts(file)
    with pytest.raises(ValueError, match="these are no stored rollouts"):
        load_rollout(file, 3)


def test_what_is_searched(tmp_path: Path) -> None:
    stored = load_rollouts(store_rows(tmp_path, 3, [{"tokens": ["One", " TWO\n"], "logp": [-1, -1], "prompt": "Why?"}]))
    step = SearchedStep(stored)
    for text in ("why", "WHY?", "one two", "ne t", "e tw", "o\n", "two", ""):
        assert step.find(text) == [0], text
    for text in ("one  two", "twoone", "onetwo", "?one", "two\n\n", "\0"):
        assert step.find(text) == [], text
    words = SearchedStep(load_rollouts(store_rows(tmp_path / "spaced", 3, ROWS)))
    assert [words.find(text) for text in ("a b", "b a", "c", "a c", "p p")] == [[0], [0], [1, 2], [], [0, 1]]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", " a", "ba ", "", "aab ", "\0"]), max_size=8), max_size=4),
       st.text("ab \0", min_size=1, max_size=6))  # fmt: skip
def test_a_text_is_found_wherever_it_stands(responses: list[list[str]], text: str) -> None:
    """Held against the joined texts. The last token has a blank, so that no response is one of words."""
    stored = [Spelled([*tokens, "; "]) for tokens in responses]
    expected = [i for i, one in enumerate(stored) if text in "".join(one.tokens)]
    assert SearchedStep(cast("Any", stored)).find(text) == expected


@dataclass
class Spelled:
    """What is searched of a stored rollout."""

    tokens: list[str]
    question = RolloutTask("x", "")

    def spelled(self) -> tuple[None, list[str], list[int]]:
        return None, self.tokens, [*range(len(self.tokens))]


def test_pictures_tags_and_what_was_read_go_along(tmp_path: Path) -> None:
    def rollout(ids: list[int]) -> Rollout:
        return Rollout("t", 0, (1,), Completion(ids, [-1.0] * len(ids), [1] * len(ids)), Grade(0.0, "9", ""), None)

    uri = "data:image/png;base64,iVBORw0KGgo="
    task = RolloutTask("read <image>", "8", {"level": "5"}, (uri,), "digits 3 5", "digits 3 5")
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)
    words = ["digits", "3", "5", "6", ";"]
    store_rows(tmp_path, 0, [{"tokens": words, "logp": [-1] * 5}])  # its tokenizer stays
    file = store_rollouts(tmp_path, 1, [rollout([0, 1, 2, 4]), rollout([0, 1, 3, 4]), rollout([4])], {0: task})
    stored = load_rollouts(file)
    assert stored[0].question == task
    found = step_rows(stored)
    assert [row["r"] for row in found["rows"]] == [True, False, None]
    assert found["groups"]["0"]["tags"] == ["level: 5"]
    assert found["groups"]["0"]["prompt"] == "read [picture 1]"
    one = whole(stored[0])
    assert one["text"] == "digits 3 5"
    assert one["images"][0]["note"] == "a picture cannot be read"


def test_texts_of_models_are_clean_within_json(tmp_path: Path) -> None:
    rows = [{"tokens": ["\u202ex\x1b"], "logp": [-1.0], "extracted": "\x00", "note": "\u2067", "prompt": "\u202e"}]
    (stored,) = load_rollouts(store_rows(tmp_path, 0, rows))
    said = str(whole(stored)) + str(step_rows([stored]))
    assert not set("\u202e\u2067\x1b\x00") & set(said)
    assert "[U+202E]x" in said


def test_a_teacher_who_read_nothing_that_is_a_number(tmp_path: Path) -> None:
    c = Completion([0], [-1.0], [1])
    file = store_rollouts(
        tmp_path,
        1,
        [Rollout("t", 0, (), c, Grade(0.0, None, ""), TokenScores([float("nan")]))],
        {0: RolloutTask("", "")},
    )
    (stored,) = load_rollouts(file)
    assert step_rows([stored])["rows"][0]["d"] is None
    assert whole(stored)["streams"]["teacher"] is None
